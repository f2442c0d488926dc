"""Ask a server whether it is there: short GETs that never go through a proxy and never raise."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3


def http_status(
    url: str, timeout_s: float = 2.0, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> int | None:
    """The status of a GET; None if nothing answers. Redirects are not followed."""
    answer = _get(url, timeout_s, headers, tls)
    return answer.status if answer else None


def get_json(
    url: str, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Any:
    """The JSON that a GET answers with; None if it does not answer 200 and JSON."""
    answer = _get(url, timeout_s, headers, tls)
    try:
        return json.loads(answer.data) if answer and answer.status == 200 else None
    except ValueError:
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
) -> urllib3.BaseHTTPResponse | None:
    try:
        with urllib3.PoolManager(ssl_context=tls) as pool:
            return pool.request("GET", url, timeout=timeout_s, headers=headers, retries=False, redirect=False)
    except (urllib3.exceptions.HTTPError, OSError):
        return None
