"""What every exporter's command line and web server have in common."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from aiohttp import http_exceptions, web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporters.connections import Connections, guard
from exporters.log import set_up_logging
from exporters.targets import UsageError

LOG_LEVELS = ("debug", "info", "warning", "error")


class ArgumentParser(argparse.ArgumentParser):
    """Wrong usage is a UsageError."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message} (see --help)")


def command_line(module: str, about: str | None, port: int | str, port_words: str = "%(default)s") -> ArgumentParser:
    """What every exporter can be told: where to listen and what to log; `about` is its docstring."""
    parser = ArgumentParser(prog=f"python -m {module}", description=(about or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=port_number, default=port, help=f"port to listen on (default {port_words})")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    return parser


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
    """Bind and listen. Raises UsageError with the cause when that is impossible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        why = "the port is in use; stop what holds it, or choose another with --port"
        reason = why if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise UsageError(f"Cannot listen on {host}:{port}: {reason}.") from None
    return listening


class Collected(Collector):
    """Metrics that are made anew at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """The metric families of now."""
        return self._collect()


def application(
    collect: Callable[[], Iterable[Metric]],
    title: str,
    *,
    rows: Callable[[], str] = str,
    ended: Callable[[], str] = str,
    **options: Any,
) -> web.Application:
    """Return an application with `/`, `/metrics` and `/healthz`.

    Args:
        collect: what is served, beside the exporter's own memory and CPU; never waits.
        title: the exporter's name.
        rows: HTML between the title and the links, made anew at each request.
        ended: what has ended though it should run; healthy is none of it, the empty text.
        options: aiohttp's.
    """
    registry = CollectorRegistry()
    registry.register(Collected(collect))
    ProcessCollector(registry=registry)

    async def index(_: web.Request) -> web.Response:
        page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>{rows()}'
            '<p><a href="/metrics">metrics</a> <a href="/healthz">health</a></p></html>'
        )
        return web.Response(text=page, content_type="text/html")

    async def metrics(request: web.Request) -> web.Response:
        # In the text format or as OpenMetrics, as the scraper asks.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        text = ended()
        return web.Response(text=f"{text or 'ok'}\n", status=500 if text else 200)

    app = web.Application(**options)
    app.add_routes([web.get("/", index), web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app


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


Made = tuple[web.Application, dict[str, object]]
"""An exporter's application, and what is logged beside its address when it listens."""


def run(
    parser: ArgumentParser,
    arguments: Sequence[str] | None,
    make: Callable[[argparse.Namespace], Made],
    log: logging.Logger,
) -> int:
    """Run an exporter until SIGTERM or SIGINT; returns the exit code.

    Args:
        parser: of its command line.
        arguments: the command line's; None: the process' own.
        make: makes it of the options. Raises UsageError.
        log: says where the exporter listens.
    """
    try:
        options = parser.parse_args(arguments)
        app, fields = make(options)
        listening = bind(options.host, options.port)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    set_up_logging(options.log_level)
    logging.getLogger("aiohttp.server").addFilter(BadRequests())
    host, port = listening.getsockname()[:2]

    connections = Connections()
    app.middlewares.append(connections.middleware)
    app.middlewares.append(guard(options.host))

    async def started(_: web.Application) -> None:
        log.info("listening", extra={"fields": {"host": host, "port": port, **fields}})

    async def ending(_: web.Application) -> None:
        log.info("stopping")

    app.on_startup.append(started)
    app.on_shutdown.append(ending)
    with contextlib.closing(listening):
        asyncio.run(_serve(app, listening, connections))
    return 0


async def _serve(app: web.Application, listening: socket.socket, connections: Connections) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    connections.server = runner.server
    server = await loop.create_server(connections, sock=listening)
    sweeping = asyncio.create_task(connections.keep_sweeping())
    try:
        await ended.wait()
    finally:
        sweeping.cancel()
        server.close()
        await runner.cleanup()
