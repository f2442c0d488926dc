"""Prometheus exporter: is each engine up and ready, what is it, and what does it use.

Run it as `python -m exporters.engine --engine NAME=URL [--engine ...]`. Engines are watched in the background, so a
scrape answers at once whatever an engine does. Memory and CPU are those of the process tree that listens at the URL;
of engines in containers, whose processes are not to be seen, those of the container (`--containers`, `--cgroups`).
"""

from __future__ import annotations

import argparse
import asyncio
import html
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web

from exporters.containers import OPTION_HELP, Cgroups, ContainerMap, Containers
from exporters.engine_series import metrics
from exporters.engine_watch import EngineWatch
from exporters.targets import ENGINES_VARIABLE, Target, UsageError, check_names, parse_target, targets_of_environment
from exporters.web import Made, application, command_line, run, seconds

log = logging.getLogger("exporters.engine")


class Exporter:
    """The background loops and the web application of one exporter process."""

    def __init__(
        self, targets: Sequence[Target], *, interval: float, timeout: float, containers: Containers | None = None
    ) -> None:
        self._timeout = timeout
        self.watches: list[EngineWatch] = []
        self.watches += [EngineWatch(target, interval, self.watches, containers) for target in targets]
        self._tasks: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        """Return the application with `/`, `/metrics` and `/healthz`."""
        app = application(lambda: metrics(self.watches), "Bakeoff engine exporter", rows=self._rows, ended=self._ended)
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

    def _ended(self) -> str:
        dead = sum(task.done() for task in self._tasks)
        return f"{dead} of {len(self._tasks)} loops ended" if dead else ""

    def _rows(self) -> str:
        rows = "".join(
            f"<li>{html.escape(watch.target.name)} at {html.escape(watch.target.url)}: {_state(watch)}</li>"
            for watch in self.watches
        )
        return f"<ul>{rows}</ul>"


def _state(watch: EngineWatch) -> str:
    """How far an engine has come, in words."""
    if watch.ready:
        return "ready"
    return "up, lists no model" if watch.up else "not healthy" if watch.reachable else "down"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code."""
    parser = command_line("exporters.engine", __doc__, 9101)
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
    return run(parser, arguments, make, log)


def make(options: argparse.Namespace) -> Made:
    """The exporter, as its options have it. Raises UsageError."""
    targets = [parse_target(text) for text in options.engine] or targets_of_environment()
    if not targets:
        raise UsageError("No engine to watch: give --engine NAME=URL, for example vllm=http://127.0.0.1:8101")
    names = [target.name for target in targets]
    check_names(names)
    file = options.containers
    known = Containers(ContainerMap(file, log), Cgroups(options.cgroups)) if file else None
    exporter = Exporter(targets, interval=options.interval, timeout=options.timeout, containers=known)
    return exporter.application(), {"engines": ",".join(names)}


if __name__ == "__main__":
    sys.exit(main())
