"""Prometheus exporter: is each engine up and ready, what is it, and what does it use.

Run it as `python -m exporters.engine --engine NAME=URL [--engine ...]`. Engines are watched in the background, so a
scrape answers at once whatever an engine does. Memory and CPU are those of the process tree that listens at the URL;
of engines in containers, whose processes are not to be seen, those of the container (`--containers`, `--cgroups`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import html
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from exporters.cgroups import Cgroups
from exporters.container_map import OPTION_HELP, ContainerMap
from exporters.engine_series import EngineCollector
from exporters.engine_watch import Containers, EngineWatch
from exporters.log import set_up_logging
from exporters.targets import ENGINES_VARIABLE, Target, parse_target, targets_of_environment
from exporters.web import LOG_LEVELS, ArgumentParser, bind, exposition, port_number, seconds, serve
from loadgen.errors import UserError

log = logging.getLogger("exporters.engine")


class Exporter:
    """The background loops and the web application of one exporter process."""

    def __init__(
        self, targets: Sequence[Target], *, interval: float, timeout: float, containers: Containers | None = None
    ) -> None:
        self._timeout = timeout
        self.watches: list[EngineWatch] = []
        self.watches += [EngineWatch(target, interval, self.watches, containers) for target in targets]
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(self.watches))
        ProcessCollector(registry=self.registry)
        self._tasks: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        """Return the application with `/`, `/metrics` and `/healthz`."""
        app = web.Application()
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.cleanup_ctx.append(self._loops)
        return app

    async def _loops(self, _: web.Application) -> AsyncIterator[None]:
        # A connection that is not made in half the time is none: nobody is there to have answered late.
        timeout = aiohttp.ClientTimeout(total=self._timeout, sock_connect=self._timeout / 2)
        async with aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "bakeoff-exporter"}) as session:
            for watch in self.watches:
                self._tasks.append(asyncio.create_task(watch.watch_answers(session)))
                self._tasks.append(asyncio.create_task(watch.watch_usage()))
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _metrics(self, request: web.Request) -> web.Response:
        return exposition(self.registry, request)

    async def _healthz(self, _: web.Request) -> web.Response:
        dead = sum(task.done() for task in self._tasks)
        return web.Response(text=f"{dead} of {len(self._tasks)} loops ended\n" if dead else "ok\n",
                            status=500 if dead else 200)  # fmt: skip

    async def _index(self, _: web.Request) -> web.Response:
        rows = "".join(
            f"<li>{html.escape(watch.target.name)} at {html.escape(watch.target.url)}: {_state(watch)}</li>"
            for watch in self.watches
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Bakeoff engine exporter</title>'
            f'<h1>Bakeoff engine exporter</h1><ul>{rows}</ul><p><a href="/metrics">metrics</a> '
            '<a href="/healthz">health</a></p></html>'
        )
        return web.Response(text=page, content_type="text/html")


def _state(watch: EngineWatch) -> str:
    """How far an engine has come, in words."""
    if watch.ready:
        return "ready"
    return "up, lists no model" if watch.up else "not healthy" if watch.reachable else "down"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Raises UserError."""
    parser = ArgumentParser(prog="python -m exporters.engine", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=port_number, default=9101, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--engine",
        action="append",
        metavar="NAME=URL",
        default=[],
        help=f"engine to watch; repeatable (default: those in {ENGINES_VARIABLE})",
    )
    parser.add_argument("--containers", type=Path, metavar="FILE", help=OPTION_HELP)
    parser.add_argument(
        "--cgroups",
        type=Path,
        metavar="FOLDER",
        default=Path("/sys/fs/cgroup"),
        help="with --containers: the tree of control groups that has the containers' (default %(default)s)",
    )
    parser.add_argument("--interval", type=seconds, default=1.0, help="seconds between probes (default %(default)s)")
    parser.add_argument("--timeout", type=seconds, default=2.0, help="limit of one question (default %(default)s s)")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code."""
    try:
        options = parse_arguments(arguments)
        targets = [parse_target(text) for text in options.engine] or targets_of_environment()
        if not targets:
            raise UserError("No engine to watch: give --engine NAME=URL, for example vllm=http://127.0.0.1:8101")
        names = [target.name for target in targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"--engine names {twice[0]!r} twice; each engine needs its own name")
        listening = bind(options.host, options.port)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    set_up_logging(options.log_level)
    containers = (
        Containers(ContainerMap(options.containers, log), Cgroups(options.cgroups)) if options.containers else None
    )
    with contextlib.closing(listening):
        exporter = Exporter(targets, interval=options.interval, timeout=options.timeout, containers=containers)
        asyncio.run(serve(exporter.application(), listening, log, engines=",".join(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
