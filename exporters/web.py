"""What every exporter's command line and web server have in common."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import math
import signal
import socket
from typing import NoReturn

from aiohttp import http_exceptions, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from loadgen.errors import UserError

LOG_LEVELS = ("debug", "info", "warning", "error")


class ArgumentParser(argparse.ArgumentParser):
    """Wrong usage is a UserError."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message} (see --help)")


def seconds(text: str) -> float:
    """Read a number of seconds, 0.1 or more. Raises ValueError."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0.1):
        raise ValueError
    return value


def port_number(text: str) -> int:
    """Read a port number; 0 is any free one. Raises ValueError."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError
    return value


# argparse names them in its messages.
seconds.__name__, port_number.__name__ = "number of seconds (0.1 or more)", "port number"


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises UserError with the cause when that is impossible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        why = "the port is in use; stop what holds it, or choose another with --port"
        reason = why if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise UserError(f"Cannot listen on {host}:{port}: {reason}.") from None
    return listening


def exposition(registry: CollectorRegistry, request: web.Request) -> web.Response:
    """Answer a scrape, in the text format or as OpenMetrics, as the scraper asks."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


class BadRequests(logging.Filter):
    """Makes one short warning of what a client sent that is no HTTP: aiohttp logs it as an error of its own.

    A client that is wrong for an hour is one line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; it is changed where it is about such a request."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, http_exceptions.HttpProcessingError):
            return True
        reason = " ".join(error.message.split())[:200]
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.msg, record.args, record.exc_info = "bad_request", (), None
        record.fields = {"reason": reason}
        known, self._last = reason == self._last, reason
        return not known


async def serve(application: web.Application, listening: socket.socket, log: logging.Logger, **fields: object) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT; `fields` are logged beside the address."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logging.getLogger("aiohttp.server").addFilter(BadRequests())
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        host, port = listening.getsockname()[:2]
        log.info("listening", extra={"fields": {"host": host, "port": port, **fields}})
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()
