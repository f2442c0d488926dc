"""How a streaming request can fail, each with the word that records use for it."""

from __future__ import annotations


class StreamFailure(Exception):
    """A request that did not come to its proper end. `kind` is the word that records use for it."""

    kind = "failed"


class ConnectError(StreamFailure):
    """The connection could not be opened: name resolution, TCP or TLS."""

    kind = "connect"


class ConnectionCut(StreamFailure):
    """The server ended the connection (FIN or RST) before the response was complete.

    `retriable`: it was a kept-alive connection and not one byte of the response had come, so the server most
    likely closed it as idle while the request was on its way (RFC 9112, section 9.3.1).
    """

    kind = "connection_cut"

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class ProtocolError(StreamFailure):
    """What came is not the HTTP/1.1 response that it should be."""

    kind = "bad_response"


class StreamTimeout(StreamFailure):
    """Nothing came for too long (`which` = "stall"), or the whole response took too long ("total")."""

    def __init__(self, which: str, seconds: float) -> None:
        reason = "no bytes for" if which == "stall" else "no end of the response after"
        super().__init__(f"{reason} {seconds:g} s")
        self.which = which
        self.kind = f"{which}_timeout"
