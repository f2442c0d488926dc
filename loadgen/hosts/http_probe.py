"""Ask a server whether it is there: short GETs that never go through a proxy and never raise."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit


def http_status(url: str, timeout_s: float = 2.0) -> int | None:
    """The status of a GET; None if nothing answers. Redirects are not followed."""
    answer = _get(url, timeout_s)
    return answer[0] if answer else None


def get_json(url: str, timeout_s: float = 5.0) -> Any:
    """The JSON that a GET answers with; None if it does not answer 200 and JSON."""
    answer = _get(url, timeout_s)
    if not answer or answer[0] != 200:
        return None
    try:
        return json.loads(answer[1])
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


def _get(url: str, timeout_s: float) -> tuple[int, bytes] | None:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
