"""Reads a metrics page within limits of time and size; every failure in words."""

from __future__ import annotations

import dataclasses
import ssl
import time
from collections.abc import Mapping

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from loadgen.message import say
from loadgen.monitoring.engine_page import PageError

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
    _pool: urllib3.PoolManager = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the pool that keeps the connection."""
        object.__setattr__(self, "_pool", urllib3.PoolManager(ssl_context=self.tls))

    def read(self) -> str:
        """The page. Raises PageError: it is not there, too large, or was not whole within 2 s."""
        deadline = time.monotonic() + LIMIT_S
        try:
            answer = self._pool.request(
                "GET",
                self.url,
                headers={**self.headers, "Accept": "text/plain", "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(connect=LIMIT_S, read=LIMIT_S),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                body = self._body(answer, deadline)
            except BaseException:
                answer.close()  # what is left of it is not to be read by the next
                raise
            answer.release_conn()
        except NewConnectionError:  # which is a kind of time-out to urllib3
            raise PageError(say("nothing answers there")) from None
        except TimeoutError:
            raise PageError(say("it did not answer within {seconds} s", seconds=f"{LIMIT_S:g}")) from None
        except (HTTPError, OSError, ValueError) as error:
            raise PageError(say("it cannot be read ({error})", error=type(error).__name__)) from None
        return body.decode("utf-8", "replace")

    def _body(self, answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        if answer.status != 200:
            raise PageError(say("it answers with HTTP {status}", status=answer.status))
        body = bytearray()
        while part := answer.read1(1 << 16, decode_content=False):
            body += part
            if len(body) > MAX_BYTES:
                raise PageError(say("it has more than {size} MiB", size=MAX_BYTES >> 20))
            if time.monotonic() > deadline:
                raise PageError(say("it was not whole within {seconds} s", seconds=f"{LIMIT_S:g}"))
        return bytes(body)
