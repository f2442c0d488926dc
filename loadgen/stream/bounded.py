"""HTTP whose answers end, whatever a server sends: every wait is for what is left of the time, and every byte counts.

Head, framing, trailers and the interim answers before the head are bounded with the body. Light: no part of a measured
request comes this way.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Generator, Mapping
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

MAX_BYTES = 20 << 20
"""Of an answer with all that is around its body."""


class TooLargeError(Exception):
    """An answer has more bytes than anybody waits for."""


class _Rest(io.RawIOBase):
    """What a socket's file still gives within the time."""

    def __init__(self, file: Any, sock: Any, end: float) -> None:
        self._file, self._sock, self._end, self._bytes = file, sock, end, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        size: int = self._file.raw.readinto(buffer)
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise TooLargeError
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


class _Ends:
    """A connection of urllib3's: its read time-out is that of a whole answer, and not of each wait."""

    timeout: Any

    def response_class(self, sock: Any, **options: Any) -> http.client.HTTPResponse:
        """The answer to a request that was sent."""
        answer = http.client.HTTPResponse(sock, **options)
        answer.fp = io.BufferedReader(_Rest(answer.fp, sock, time.monotonic() + float(self.timeout)), 1 << 16)
        return answer


class _Plain(_Ends, HTTPConnection):  # type: ignore[misc]
    pass


class _Tls(_Ends, HTTPSConnection):  # type: ignore[misc]
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Tls


class BoundedPool(urllib3.PoolManager):
    """Connections that are kept. No proxy is used, no redirect followed, nothing tried again, nothing unpacked."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of `urllib3.PoolManager`."""
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def ask(
        self,
        method: str,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """An answer's head; its body by `parts`. All of it comes within `timeout_s`, counted from here.

        Raises urllib3's HTTPError, or TooLargeError.
        """
        return self.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s, total=timeout_s),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )


def parts(answer: urllib3.BaseHTTPResponse, most: int) -> Generator[bytes]:
    """The body as it comes. Its connection is closed unless the body was read to its end.

    Raises urllib3's HTTPError; TooLargeError behind the part with which it has more than `most` bytes.
    """
    size = 0
    try:
        while part := answer.read1(1 << 16, decode_content=False):
            yield part
            size += len(part)
            if size > most:
                raise TooLargeError
    finally:
        answer.close()
