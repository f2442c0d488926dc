"""Prometheus exporter: what NVIDIA's GPUs do, and how much of their memory each engine has.

Run it as `python -m exporters.gpu`. GPUs are watched in a thread of their own, so a scrape answers at once whatever
the driver does. Without a GPU or a driver it serves `bakeoff_gpu_devices 0`, and looks again now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aiohttp import web

from exporters.containers import OPTION_HELP
from exporters.gpu_monitor import GpuMonitor
from exporters.gpu_owner import OTHER, GpuOwners
from exporters.gpu_series import metrics
from exporters.nvml import Nvml
from exporters.process_tree import ProcessTree
from exporters.targets import ENGINES_VARIABLE, UsageError, check_names, parse_target, targets_of_environment
from exporters.web import Made, application, command_line, run, seconds

STOP_LIMIT_S = 2.0

log = logging.getLogger("exporters.gpu")


def find_owners(engines: Sequence[str], container_map: Path | None, records: Path | None = None) -> GpuOwners:
    """Return who owns which process, from `NAME=PID` and `NAME=URL`. Raises UsageError for what is neither."""
    pids: list[tuple[str, int]] = []
    targets = [] if engines else targets_of_environment()
    for text in engines:
        name, _, value = text.partition("=")
        if value.isascii() and value.isdigit():
            pids.append((parse_target(f"{name}=http://localhost").name, int(value)))
        else:
            targets.append(parse_target(text))
    names = [name for name, _ in pids] + [target.name for target in targets]
    check_names(names)
    if OTHER in names:
        raise UsageError(f"--engine: {OTHER!r} is what processes of no engine are counted as; choose another name")
    trees: dict[str, ProcessTree] = {}

    def listeners() -> list[int]:
        return [tree.listener_pid for tree in trees.values() if tree.listener_pid]

    trees |= {target.name: ProcessTree(target.host, target.port, others=listeners) for target in targets}
    return GpuOwners(dict(pids), trees, container_map, records)


class Exporter:
    """The watching threads and the web application."""

    def __init__(self, monitor: GpuMonitor, owners: GpuOwners) -> None:
        self._stop = threading.Event()
        # Daemons: a driver that hangs must not keep the exporter from ending.
        self._threads = [
            threading.Thread(target=self._watch, args=(watch.run,), name=type(watch).__name__, daemon=True)
            for watch in (monitor, owners)
        ]
        self._monitor = monitor

    def application(self) -> web.Application:
        """Return the application with `/`, `/metrics` and `/healthz`."""
        app = application(lambda: metrics(*self._monitor.scrape()), "Bakeoff GPU exporter", ended=self._ended)
        app.cleanup_ctx.append(self._lifespan)
        return app

    def _watch(self, run: Callable[[threading.Event], None]) -> None:
        try:
            run(self._stop)
        except Exception:  # a defect must show: /healthz tells, the log has the reason
            log.exception("watch_ended", extra={"fields": {"thread": threading.current_thread().name}})

    async def _lifespan(self, _: web.Application) -> AsyncIterator[None]:
        for thread in self._threads:
            thread.start()
        yield
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STOP_LIMIT_S)

    def _ended(self) -> str:
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"ended: {', '.join(ended)}; see the log" if ended else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code."""
    parser = command_line("exporters.gpu", __doc__, 9102)
    parser.add_argument(
        "--engine",
        action="append",
        metavar="NAME=PID|URL",
        default=[],
        help="engine whose processes are told apart, by the pid at the top of its tree or by the URL that it "
        f"listens on; repeatable (default: those in {ENGINES_VARIABLE})",
    )
    parser.add_argument("--containers", type=Path, metavar="FILE", help=OPTION_HELP)
    parser.add_argument(
        "--launch-records",
        type=Path,
        metavar="FOLDER",
        help="folder of launch-NAME.json, as launchers write them: engines are told apart before they listen",
    )
    parser.add_argument(
        "--peak-window",
        type=seconds,
        default=2.0,
        help="a memory peak stays visible at least this long, so scrapers at intervals of up to this each see all "
        "(default %(default)s s)",
    )
    return run(parser, arguments, make, log)


def make(options: argparse.Namespace) -> Made:
    """The exporter, as its options have it. Raises UsageError."""
    owners = find_owners(options.engine, options.containers, options.launch_records)
    monitor = GpuMonitor(Nvml(), owners.engines_of, window_s=options.peak_window)
    return Exporter(monitor, owners).application(), {}


if __name__ == "__main__":
    sys.exit(main())
