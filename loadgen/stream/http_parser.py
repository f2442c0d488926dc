"""An HTTP/1.1 response from bytes, without input or output. De-framing is llhttp's (httptools)."""

from __future__ import annotations

import httptools

MAX_HEAD_BYTES = 256 * 1024
CHUNK_HEAD_BYTES = 64
"""The line with a chunk's size is no longer than this, nor much of what else brings nothing of the body."""
COMPRESSED = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb", "dcz"))


def is_compressed(coding: str) -> bool:
    """Whether a `Content-Encoding` says so: not `identity`, nothing, or what is no coding (a charset)."""
    return bool(COMPRESSED.intersection(coding.lower().replace(" ", "").split(",")))


class ResponseParser:
    """Takes the bytes of one response as they come.

    `status`, `headers` (names in lower case; repeated ones joined by ", "): known once the head is complete.
    `complete`: the body is. `keep_alive`: the connection may serve again; known with `complete`.
    `until_close`: the body ends with the connection. `problem`: why this is no proper response, None if it is.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keep_alive = False
        self.until_close = False
        self.problem: str | None = None
        self._head_bytes = 0
        self._between_chunks = False
        self._body: list[bytes] = []
        # One of the parser's callbacks, which it looks up when made; list.append itself, as it runs once a chunk.
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they hold of the body. What is wrong with them is put into `problem`."""
        head = self.status is None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.problem = f"not a proper HTTP response: {error}"
        if head:
            self._check_head(len(data))
        if self.problem is not None:
            self.complete = False
        body = self._body
        if len(body) == 1:
            content = body[0]
        else:
            content = b"".join(body)
            if not (content or head) and len(data) > CHUNK_HEAD_BYTES:
                self._count_extra(len(data))
        body.clear()
        # The digits of a chunk's size come without a callback, but end in no line break.
        if self._between_chunks and data[-1:] != b"\n":
            self._between_chunks = False
        return content

    @property
    def between_chunks(self) -> bool:
        """Whether the bytes so far end with a whole chunk: then whole chunks may be left out of what is fed."""
        return self._between_chunks and not self.complete and self.problem is None

    def _check_head(self, size: int) -> None:
        self._head_bytes += size
        if self.status is not None:
            encoding = self.headers.get("content-encoding", "")
            if is_compressed(encoding) and self.problem is None:
                self.problem = f"the server compressed the response ({encoding}) unasked"
        elif self._head_bytes > MAX_HEAD_BYTES:
            self.problem = f"the response's head is larger than {MAX_HEAD_BYTES} bytes"

    def _count_extra(self, size: int) -> None:
        """Bound what comes beside head and body: trailers, and what may stand behind a chunk's size."""
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and self.problem is None:
            self.problem = f"the response has more than {MAX_HEAD_BYTES} bytes beside its body"

    # What llhttp calls while it is fed.
    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header (or trailer) field."""
        if self.status is not None:  # a trailer, of which nothing is wanted
            self._count_extra(len(name) + len(value))
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Take the status; interim responses (1xx) are passed over."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self.until_close = not framed and status not in (204, 304)

    def on_chunk_header(self) -> None:
        """Note that a chunk, or the end of all, has begun."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has come whole."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """Mark the end; whether the connection may be kept is only known in here."""
        if self.status is not None:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()
