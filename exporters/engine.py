"""Prometheus exporter: is each engine up, what is it, and what does its whole process tree use.

Run it as `python -m exporters.engine --engine NAME=URL [--engine ...]`. Engines are watched in the background, so a
scrape answers at once whatever an engine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import html
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters.log import set_up_logging
from exporters.probe import EngineProbe, Identity, ProbeError
from exporters.process_tree import ProcessTree, TreeSample
from exporters.web import LOG_LEVELS, ArgumentParser, bind, exposition, port_number, seconds, serve
from loadgen.errors import UserError

IDENTITY_EVERY_S = 30.0
UNKNOWN = "unknown"
ENGINES_VARIABLE = "BAKEOFF_ENGINES_JSON"

log = logging.getLogger("exporters.engine")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One engine to watch."""

    name: str
    url: str
    """Root of its API, without a trailing slash and without `/v1`."""
    host: str
    port: int


def parse_target(text: str) -> Target:
    """Read `NAME=URL`. Raises UserError when it is not one."""
    name, equals, url = text.partition("=")
    example = "for example vllm=http://127.0.0.1:8101"
    if not equals or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise UserError(
            f"--engine {text!r}: expected NAME=URL with a NAME of letters, digits, '_', '.', '-'; {example}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise UserError(f"--engine {text!r}: not a URL ({error}); {example}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"--engine {text!r}: the URL must start with http:// or https:// and name a host; {example}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(f"--engine {name}: the URL must hold no credentials, query or fragment; {example}")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Target(name, f"{parts.scheme}://{parts.netloc}{path}", host, port)


def targets_of_environment() -> list[Target]:
    """The engines in `BAKEOFF_ENGINES_JSON`, as Locust's form has them. Raises UserError when it is malformed."""
    try:
        seats = json.loads(os.environ.get(ENGINES_VARIABLE) or "[]")
        return [parse_target(f"{seat['name']}={seat['base_url']}") for seat in seats]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{ENGINES_VARIABLE} is not a JSON list of engines with name and base_url.") from None


class EngineWatch:
    """What is known of one engine, kept fresh by two background loops."""

    def __init__(self, target: Target, interval: float, others: Sequence[EngineWatch]) -> None:
        self.target, self.interval = target, interval
        self.up = False
        self.identity: Identity | None = None
        self.sample: TreeSample | None = None
        self.errors = 0
        self._others = others
        self._identity_due = -math.inf
        self._last_error = ""
        self.tree = ProcessTree(target.host, target.port, others=self._other_listeners)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the engine's trees so far; None before one was ever found."""
        return self.tree.cpu.total if self.sample is not None or self.tree.cpu.total > 0 else None

    def _other_listeners(self) -> list[int]:
        return [watch.tree.listener_pid for watch in self._others if watch is not self and watch.tree.listener_pid]

    async def watch_answers(self, session: aiohttp.ClientSession) -> None:
        """Ask for health and identity, for ever."""
        probe = EngineProbe(session, self.target.url)
        async for _ in ticks(self.interval):
            try:
                up = await probe.healthy()
            except ProbeError as error:
                up = False
                self._note_error(str(error))
            if up != self.up:
                self.up = up
                self._log("engine_up" if up else "engine_down", url=self.target.url)
                if up:
                    self._last_error = ""
                    self._identity_due = -math.inf
            if up and time.monotonic() >= self._identity_due:
                try:
                    identity = await probe.identity()
                except ProbeError as error:
                    self._note_error(str(error))
                    self._identity_due = time.monotonic() + self.interval
                    continue
                if identity != self.identity:
                    self._log("engine_identity", version=identity.version, model=identity.model)
                self.identity = identity
                self._identity_due = time.monotonic() + IDENTITY_EVERY_S

    async def watch_processes(self) -> None:
        """Measure the process tree, for ever. Reading it may wait for the kernel, so it happens in a thread."""
        seen: int | None = None
        async for _ in ticks(self.interval):
            try:
                self.sample = await asyncio.to_thread(self.tree.sample, answers=self.up)
            except Exception as error:  # a defect here must not end the watch, and must show
                self.sample = None
                self._note_error(f"process tree: {error!r}")
            if self.tree.root_pid != seen:
                seen = self.tree.root_pid
                self._log("process_found" if seen else "process_gone", pid=seen, listener=self.tree.listener_pid)

    def _note_error(self, text: str) -> None:
        self.errors += 1
        if text != self._last_error:  # an engine that hangs for an hour is one line, not 3600
            self._last_error = text
            log.warning("probe_failed", extra={"fields": {"engine": self.target.name, "reason": text}})

    def _log(self, event: str, **fields: object) -> None:
        log.info(event, extra={"fields": {"engine": self.target.name, **fields}})


async def ticks(interval: float) -> AsyncIterator[None]:
    """Yield every `interval` seconds on a fixed schedule; ticks that were missed are left out."""
    due = time.monotonic()
    while True:
        yield
        now = time.monotonic()
        due = max(due + interval, now)
        await asyncio.sleep(due - now)


class EngineCollector(Collector):
    """Turns what the watches know into metrics. It reads memory only and never waits."""

    def __init__(self, watches: Sequence[EngineWatch]) -> None:
        self._watches = watches

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families. A figure that is not known is absent, never zero."""
        up = GaugeMetricFamily("bakeoff_engine_up", "Whether the engine's health check answers", labels=["engine"])
        info = InfoMetricFamily("bakeoff_engine", "Version and model, as the engine tells them", labels=["engine"])
        memory = GaugeMetricFamily(
            "bakeoff_engine_memory_bytes",
            "Memory of the engine's whole process tree: pss counts shared pages once, rss once per process",
            labels=["engine", "kind"],
        )
        cpu = CounterMetricFamily(
            "bakeoff_engine_cpu_seconds", "CPU time of the engine's whole process tree", labels=["engine"]
        )
        processes = GaugeMetricFamily(
            "bakeoff_engine_processes", "Processes in the engine's process tree", labels=["engine"]
        )
        errors = CounterMetricFamily(
            "bakeoff_engine_scrape_errors",
            "Probes that failed though the engine was reached (late or broken answers), and failed process readings",
            labels=["engine"],
        )
        for watch in self._watches:
            name, sample, identity, seconds = watch.target.name, watch.sample, watch.identity, watch.cpu_seconds
            up.add_metric([name], float(watch.up))
            errors.add_metric([name], watch.errors)
            if watch.up and identity is not None:
                info.add_metric([name], {"version": identity.version or UNKNOWN, "model": identity.model or UNKNOWN})
            if sample is not None:
                memory.add_metric([name, "rss"], sample.rss_bytes)
                if sample.pss_bytes is not None:
                    memory.add_metric([name, "pss"], sample.pss_bytes)
                processes.add_metric([name], sample.processes)
            if seconds is not None:
                cpu.add_metric([name], seconds)
        yield from (up, info, memory, cpu, processes, errors)


class Exporter:
    """The background loops and the web application of one exporter process."""

    def __init__(self, targets: Sequence[Target], *, interval: float, timeout: float) -> None:
        self._timeout = timeout
        self.watches: list[EngineWatch] = []
        self.watches += [EngineWatch(target, interval, self.watches) for target in targets]
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
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        async with aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "bakeoff-exporter"}) as session:
            for watch in self.watches:
                self._tasks.append(asyncio.create_task(watch.watch_answers(session)))
                self._tasks.append(asyncio.create_task(watch.watch_processes()))
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
            f"<li>{html.escape(watch.target.name)} at {html.escape(watch.target.url)}: "
            f"{'up' if watch.up else 'down'}</li>"
            for watch in self.watches
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Bakeoff engine exporter</title>'
            f'<h1>Bakeoff engine exporter</h1><ul>{rows}</ul><p><a href="/metrics">metrics</a> '
            '<a href="/healthz">health</a></p></html>'
        )
        return web.Response(text=page, content_type="text/html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code."""
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
    parser.add_argument("--interval", type=seconds, default=1.0, help="seconds between probes (default %(default)s)")
    parser.add_argument("--timeout", type=seconds, default=2.0, help="limit of one question (default %(default)s s)")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    try:
        options = parser.parse_args(arguments)
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
    with contextlib.closing(listening):
        exporter = Exporter(targets, interval=options.interval, timeout=options.timeout)
        asyncio.run(serve(exporter.application(), listening, log, engines=",".join(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
