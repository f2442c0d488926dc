"""Ask a server whether it is there: short GETs that never go through a proxy and never raise."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from loadgen.stream.bounded import BoundedPool, TooLargeError, parts

MAX_BYTES = 16 << 20
"""As of a model list that is asked for: a gateway's may be long."""


def http_status(
    url: str, timeout_s: float = 2.0, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> int | None:
    """The status of a GET; None if nothing answers. Redirects are not followed."""
    answer = _get(url, timeout_s, headers, tls)
    return answer[0] if answer else None


def get_json(
    url: str, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Any:
    """The JSON that a GET answers with; None if it does not answer 200 and JSON."""
    answer = _get(url, timeout_s, headers, tls)
    try:
        return json.loads(answer[1]) if answer and answer[0] == 200 else None
    except (ValueError, RecursionError):
        return None


def accepts_connections(url: str) -> bool:
    """Whether something listens at this URL's host and port."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1):
            return True
    except OSError:
        return False


def _get(
    url: str, timeout_s: float, headers: Mapping[str, str] | None, tls: ssl.SSLContext | None
) -> tuple[int, bytes] | None:
    """Status and body of a GET; None if it is not whole in time."""
    try:
        with BoundedPool(ssl_context=tls) as pool:
            answer = pool.ask("GET", url, timeout_s, headers)
            return answer.status, b"".join(parts(answer, MAX_BYTES))
    except (HTTPError, OSError, TooLargeError):
        return None
