"""Prometheus exporter: takes KsanaLLM's OTLP/HTTP metric pushes and serves them as `ksana_*` series.

Run it as `python -m exporters.ksana` and set KsanaLLM's `setting.profiler.metrics_export_url` to its `/v1/metrics`, or
to `/NAME/v1/metrics` to have the series labelled `engine="NAME"` in place of `engine="ksana"`.
"""

from __future__ import annotations

import asyncio
import html
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from aiohttp import http_exceptions, web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporters.connections import Room
from exporters.ksana_exposition import families
from exporters.ksana_names import UnnameableError, place_of
from exporters.otlp_cumulative import SILENT_INSTANCE_S, Cumulator
from exporters.otlp_decode import Push
from exporters.otlp_http import MAX_BODY, Reason, RefusedError, accepted, read_push, refused
from exporters.web import application, command_line, run

PORT_VARIABLE = "BAKEOFF_KSANA_EXPORTER_PORT"
DEFAULT_ENGINE = "ksana"
MAX_SERIES = 500
MAX_ENGINES = 16
BODY_LIMIT_S = 10.0
MAX_BODIES = 8 << 20
"""Bytes of all bodies that are held at a time."""
UNNAMEABLE = "unnameable"
SENDER_S, MAX_SENDERS = 60.0, 8

log = logging.getLogger("exporters.ksana")


class Receiver:
    """Takes pushes, counts what became of them, and shows the series. It holds all in memory."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._series = Cumulator(max_series)
        self._pushed_at: dict[str, float] = {}
        self._pushes: Counter[str] = Counter()
        self._points: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[Reason] = Counter()
        self._last_refusal = ""
        self._senders: dict[str, dict[str, float]] = {}
        """By engine, the addresses that pushed as it, and when they last did."""
        self._told: set[str] = set()

    @property
    def engines(self) -> list[str]:
        """Who has pushed, in the order of the first push."""
        return list(self._pushed_at)

    def take(self, engine: str, push: Push, sender: str = "") -> tuple[int, str]:
        """Add a push to the series; returns how many of its points were dropped, and why. `sender`: its address."""
        self._hear(engine, sender)
        if engine not in self._pushed_at:
            log.info("first_push", extra={"fields": {"engine": engine}})
        self._pushed_at[engine] = time.time()
        self._pushes[engine] += 1
        now = time.monotonic()
        dropped: Counter[str] = Counter()
        for outcome, count in push.unread.items():
            self._drop(dropped, engine, outcome, "", count)
        for point in push.points:
            try:
                outcome = self._series.add(place_of(engine, point.stream), point, now)
            except UnnameableError as error:
                self._drop(dropped, engine, UNNAMEABLE, str(error))
                continue
            if outcome.changes_series:
                self._points[engine, outcome] += 1
            else:
                self._drop(dropped, engine, outcome, point.stream.name)
        return dropped.total(), ", ".join(f"{outcome}: {count}" for outcome, count in sorted(dropped.items()))

    def _hear(self, engine: str, sender: str) -> None:
        """Keep in mind who pushes as an engine: of two, neither's series is worth anything."""
        now, known = time.monotonic(), self._senders.setdefault(engine, {})
        known[sender] = now
        while len(self._senders) > 2 * MAX_ENGINES:
            gone = next(iter(self._senders))
            del self._senders[gone]
            self._told.discard(gone)
        for other in [other for other, moment in known.items() if now - moment > SENDER_S]:
            del known[other]
        if len(known) > 1 and engine not in self._told:
            self._told.add(engine)
            log.warning("two_pushers", extra={"fields": {"engine": engine, "senders": ", ".join(sorted(known))[:200]}})
        if len(known) > MAX_SENDERS:
            del known[min(known, key=lambda other: known[other])]

    def _drop(self, dropped: Counter[str], engine: str, outcome: str, what: str, count: int = 1) -> None:
        """Count points that were not taken; the first of each sort is logged."""
        if (engine, outcome) not in self._points:
            log.warning("point_dropped", extra={"fields": {"engine": engine, "outcome": outcome, "what": what[:120]}})
        self._points[engine, outcome] += count
        dropped[outcome] += count

    def refuse(self, error: RefusedError) -> None:
        """Count a request that was not taken."""
        self._refused[error.reason] += 1
        if str(error) != self._last_refusal:  # a sender that is wrong for an hour is one line
            self._last_refusal = str(error)
            log.warning("push_refused", extra={"fields": {"reason": error.reason, "why": str(error)}})

    def check_engine(self, engine: str) -> None:
        """Raises RefusedError for a name that is none, and where there are MAX_ENGINES others that push."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", engine):
            raise RefusedError("engine", "an engine's name has letters, digits, '_', '.' and '-' only, 63 at most")
        if engine in self._pushed_at or len(self._pushed_at) < MAX_ENGINES:
            return
        silent, moment = min(self._pushed_at.items(), key=lambda item: item[1])
        if time.time() - moment < SILENT_INSTANCE_S:
            raise RefusedError("engine", f"{MAX_ENGINES} engines push already, and there may be no more")
        del self._pushed_at[silent]

    def collect(self) -> Iterator[Metric]:
        """Yield the series, and the exporter's own."""
        yield from families(self._series.families, time.monotonic())
        pushes = CounterMetricFamily("bakeoff_ksana_pushes", "Pushes that were taken", labels=["engine"])
        newest = "When the newest push came"
        last = GaugeMetricFamily("bakeoff_ksana_last_push_timestamp_seconds", newest, labels=["engine"])
        for engine, moment in self._pushed_at.items():
            pushes.add_metric([engine], self._pushes[engine])
            last.add_metric([engine], moment)
        outcomes = "Data points by what became of them: added and gap are in the series, all others were dropped"
        points = CounterMetricFamily("bakeoff_ksana_points", outcomes, labels=["engine", "outcome"])
        for labels, count in self._points.items():
            points.add_metric(labels, count)
        answers = "Requests answered with 400, 404, 413, 415 or 503"
        refusals = CounterMetricFamily("bakeoff_ksana_refused_pushes", answers, labels=["reason"])
        for reason in get_args(Reason):
            refusals.add_metric([reason], self._refused[reason])
        many = f"Addresses that pushed as this engine in the last {SENDER_S:g} s: more than one is a mistake"
        senders = GaugeMetricFamily("bakeoff_ksana_senders", many, labels=["engine"])
        for engine, known in self._senders.items():
            senders.add_metric([engine], sum(time.monotonic() - moment <= SENDER_S for moment in known.values()))
        yield senders
        held = f"Series that are held, {MAX_SERIES} at most"
        yield from (pushes, last, points, refusals)
        yield GaugeMetricFamily("bakeoff_ksana_series", held, len(self._series))
        forgotten = "Series that were silent for long and made room for new ones"
        yield CounterMetricFamily("bakeoff_ksana_forgotten_series", forgotten, self._series.forgotten)


class Exporter:
    """The web application: `/v1/metrics` and `/NAME/v1/metrics` take pushes, `/metrics` shows the series."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self._room = Room(MAX_BODIES)
        self._decoding = asyncio.Semaphore()

    def application(self) -> web.Application:
        """Return the application with `/`, `/metrics`, `/healthz` and the paths for pushes."""
        # Bodies are unpacked by gunzip(), which knows a limit.
        options: dict[str, Any] = {"client_max_size": MAX_BODY, "handler_args": {"auto_decompress": False}}
        app = application(self.receiver.collect, "Bakeoff KsanaLLM exporter", rows=self._rows, **options)
        app.router.add_post("/v1/metrics", self._push)
        app.router.add_post("/{engine}/v1/metrics", self._push)
        return app

    async def _push(self, request: web.Request) -> web.Response:
        engine = request.match_info.get("engine", DEFAULT_ENGINE)
        try:
            self.receiver.check_engine(engine)
            push = await self._read(request)
            self.receiver.check_engine(engine)  # another may have taken the last place while the body came
        except RefusedError as error:
            self.receiver.refuse(error)
            return refused(error, request.content_type)
        dropped, why = self.receiver.take(engine, push, request.remote or "")
        return accepted(request.content_type, dropped, why)

    async def _read(self, request: web.Request) -> Push:
        """Decode a push, one at a time and beside the event loop, which goes on answering. Raises RefusedError."""
        encoding = request.headers.get("Content-Encoding", "")
        with self._room.held() as take:
            body = await _body(request, take)
            async with self._decoding:
                return await asyncio.to_thread(read_push, body, request.content_type, encoding)

    def _rows(self) -> str:
        rows = "".join(f"<li>{html.escape(engine)}</li>" for engine in self.receiver.engines)
        return f"<p>Pushed so far:</p><ul>{rows or '<li>nobody</li>'}</ul>"


async def _body(request: web.Request, take: Callable[[int], bool]) -> bytes:
    """The body as sent; `take` says whether there is room for so many bytes more.

    Raises RefusedError where it is too large, too slow or cut off, or there is no room.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for part in request.content.iter_any():
                if len(body) + len(part) > MAX_BODY:
                    raise RefusedError("too_large", f"the body has more than {MAX_BODY} bytes")
                if not take(len(part)):
                    raise RefusedError("busy", "other pushes are being read: try again")
                body += part
            return bytes(body)
    except TimeoutError:
        raise RefusedError("cut_off", f"the body did not come within {BODY_LIMIT_S:g} s") from None
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError):
        raise RefusedError("cut_off", "the body is cut off or malformed") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code."""
    port = os.environ.get(PORT_VARIABLE) or "9103"
    parser = command_line("exporters.ksana", __doc__, port, f"{PORT_VARIABLE}, else 9103")
    return run(parser, arguments, lambda _: (Exporter().application(), {}), log)


if __name__ == "__main__":
    sys.exit(main())
