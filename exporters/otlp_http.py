"""OTLP/HTTP: a request's body and its encodings, and the answers that the protocol wants.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal

from aiohttp import web
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from exporters.otlp_decode import MalformedError, Push, decode_json, decode_protobuf
from exporters.otlp_size import TooManyError, check_json, check_protobuf

MAX_BODY = 1 << 20
"""Bytes of a body as sent, and again of one unpacked. KsanaLLM's pushes have 16 KB."""
JSON, PROTOBUF = "application/json", "application/x-protobuf"
DECODERS: dict[str, Callable[[bytes], Push]] = {JSON: decode_json, PROTOBUF: decode_protobuf}
MAX_MEMBERS = 16
"""Of a gzip body; senders have one."""
GZIP = 16 + zlib.MAX_WBITS

Reason = Literal["malformed", "too_large", "gzip", "content_type", "content_encoding", "engine", "cut_off", "busy"]
STATUS: dict[Reason, int] = {"too_large": 413, "content_type": 415, "content_encoding": 415, "engine": 404, "busy": 503}


class RefusedError(Exception):
    """A request that is not taken: which sort, and why in one line."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def status(self) -> int:
        """The HTTP status; 503 asks the sender to try again, no other does."""
        return STATUS.get(self.reason, 400)


def read_push(body: bytes, content_type: str, content_encoding: str) -> Push:
    """Unpack and decode a body. Raises RefusedError."""
    decode = DECODERS.get(content_type)
    if decode is None:
        raise RefusedError("content_type", f"content type {content_type[:80]!r}: it must be {JSON} or {PROTOBUF}")
    encoding = content_encoding.strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise RefusedError("content_encoding", f"content encoding {encoding[:80]!r}: it must be gzip, or none")
    if encoding == "gzip":
        body = gunzip(body)
    try:
        (check_json if content_type == JSON else check_protobuf)(body)
        return decode(body)
    except TooManyError as error:
        raise RefusedError("too_large", f"the push has {error}") from None
    except MalformedError as error:
        raise RefusedError("malformed", str(error)) from None


def gunzip(body: bytes, limit: int = MAX_BODY) -> bytes:
    """Unpack, and stop at `limit` bytes. Raises RefusedError."""
    unpacked = b""
    for _ in range(MAX_MEMBERS):  # a gzip file may have several
        member = zlib.decompressobj(GZIP)
        try:
            unpacked += member.decompress(body, limit + 1 - len(unpacked))
        except zlib.error as error:
            raise RefusedError("gzip", f"not gzip: {error}") from None
        if len(unpacked) > limit:
            raise RefusedError("too_large", f"the unpacked body has more than {limit} bytes")
        if not member.eof:
            raise RefusedError("gzip", "the gzip body is cut off")
        body = member.unused_data
        if not body:
            return unpacked
    raise RefusedError("too_large", f"the gzip body has more than {MAX_MEMBERS} members")


def accepted(content_type: str, dropped: int, why: str) -> web.Response:
    """The answer to a push that was taken; `dropped` points of it were not."""
    message = ExportMetricsServiceResponse()
    if dropped:
        message.partial_success.rejected_data_points = dropped
        message.partial_success.error_message = why
    return _answer(message, content_type, 200)


def refused(error: RefusedError, content_type: str) -> web.Response:
    """The answer to one that was not: a Status, in the request's own encoding or else as JSON."""
    return _answer(Status(message=str(error)), content_type, error.status)


def _answer(message: Message, content_type: str, status: int) -> web.Response:
    if content_type == PROTOBUF:
        return web.Response(body=message.SerializeToString(), status=status, content_type=PROTOBUF)
    return web.Response(text=MessageToJson(message, indent=None), status=status, content_type=JSON)
