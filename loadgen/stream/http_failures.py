"""How a streaming request can fail, each with the kind that records have for it."""

from __future__ import annotations

from typing import Literal

from loadgen.record import ErrorKind


class StreamFailure(Exception):
    """A request that did not come to its proper end."""

    kind: ErrorKind


class ConnectError(StreamFailure):
    """The connection could not be opened: name resolution, TCP or TLS."""

    kind = ErrorKind.CONNECT


class ConnectionCut(StreamFailure):
    """The server ended the connection (FIN or RST) before the response was complete.

    `retriable`: it was a kept-alive connection and not one byte of the response had come, so the server most
    likely closed it as idle while the request was on its way (RFC 9112, section 9.3.1).
    """

    kind = ErrorKind.CONNECTION_CUT

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class ProtocolError(StreamFailure):
    """What came is not the HTTP/1.1 response that it should be."""

    kind = ErrorKind.BAD_RESPONSE


class StreamTimeout(StreamFailure):
    """Nothing came for too long (`which` = "stall"), or the whole response took too long ("total")."""

    def __init__(self, which: Literal["stall", "total"], seconds: float) -> None:
        reason = "no bytes for" if which == "stall" else "no end of the response after"
        super().__init__(f"{reason} {seconds:g} s")
        self.kind = ErrorKind.STALL_TIMEOUT if which == "stall" else ErrorKind.TOTAL_TIMEOUT
