"""Reads a metrics page within limits of time and size; every failure in words."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Mapping

from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from loadgen.message import mark, say
from loadgen.monitoring.engine_page import PageError
from loadgen.stream.bounded import BoundedPool, TooLargeError, parts

LIMIT_S = 2.0
"""Of one answer: a page that takes longer is none."""
MAX_BYTES = 4 << 20
NOBODY: Mapping[str, str] = {}


@dataclasses.dataclass(frozen=True)
class PageReader:
    """One page, over a connection that is kept. `headers` go to nobody else: redirects are not followed."""

    url: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: NOBODY, repr=False)
    tls: ssl.SSLContext | None = dataclasses.field(default=None, repr=False)
    _pool: BoundedPool = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the pool that keeps the connection."""
        object.__setattr__(self, "_pool", BoundedPool(ssl_context=self.tls))

    def read(self) -> str:
        """The page. Raises PageError: it is not there, too large, or was not whole within 2 s."""
        headers = {**self.headers, "Accept": "text/plain", "Accept-Encoding": "identity"}
        answer = None
        try:
            answer = self._pool.ask("GET", self.url, LIMIT_S, headers)
            if answer.status != 200:
                answer.close()
                raise PageError(say("it answers with HTTP {status}", status=answer.status))
            body = b"".join(parts(answer, MAX_BYTES))
        except TooLargeError:
            raise PageError(say("it has more than {size} MiB", size=MAX_BYTES >> 20)) from None
        except NewConnectionError:  # which is a kind of time-out to urllib3
            raise PageError(say("nothing answers there")) from None
        except TimeoutError:
            late = (
                mark("it did not answer within {seconds} s")
                if answer is None
                else mark("it was not whole within {seconds} s")
            )
            raise PageError(say(late, seconds=f"{LIMIT_S:g}")) from None
        except (HTTPError, OSError, ValueError) as error:
            raise PageError(say("it cannot be read ({error})", error=type(error).__name__)) from None
        return body.decode("utf-8", "replace")
