"""The client's own Prometheus metrics, served by the Locust master: `bakeoff_client_*`.

Histograms share one geometric grid, so that engines and runs can be laid over each other. Labels are bounded:
past `MAX_SERIES` combinations of engine, model, scenario and cell, new cells are counted under `other`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loadgen.client.health import GRID_FACTOR, NS_PER_MS, LagHistogram, schedule_lag_ns
from loadgen.contention.reading import Contention
from loadgen.distributed.messages import Pulse
from loadgen.metrics.definitions import NO_TPOT, carries_none, e2e_ms, tpot_ms, ttft_ms
from loadgen.metrics.slo import Slo
from loadgen.metrics.summary import itl_ms
from loadgen.record import RequestRecord
from loadgen.traffic.plan import BlockPlan

GRID_NS = tuple(round(1e5 * GRID_FACTOR**step) for step in range(68))
"""Upper bounds of the buckets in ns: 0.1 ms to about 310 s, each 25% above the last."""
MAX_SERIES = 200
MAX_WORKERS = 100
LABELS = ("engine", "model", "scenario", "cell")
BLOCK_LABELS = ("run_id", "scenario", "block", "engine", "cell", "load")
Key = tuple[str, ...]

HISTOGRAMS = {
    "ttft": "Time to first token, from the first byte sent to the first content event.",
    "tpot": "Time per output token after the first.",
    "itl": "Gaps between content events; an event may carry several tokens.",
    "e2e": "End-to-end latency, from the first byte sent to the last content event.",
}

SIDES = ("engine", "client")
SHARES = ("own", "others", "waiting", "kept", "steal", "throttled")
GAUGES = {
    "users": "Simulated users.",
    "in_flight": "Requests that were sent and have not ended.",
    "workers": "Locust workers connected.",
    "records_pending": "Records of requests that are not on disk yet.",
}

LAGS = {
    "read": "How long content events lay in the kernel before a worker read them.",
    "schedule": "How long after the schedule, or their batch's instant, requests were sent.",
    "loop": "How late a worker's event loop got round to what was due.",
}


@dataclasses.dataclass
class WorkerFigures:
    """What is known of one worker, since its process started."""

    lags: dict[str, LagHistogram] = dataclasses.field(default_factory=lambda: {name: LagHistogram() for name in LAGS})
    gc_seconds: float = 0.0
    cpu_seconds: float = 0.0
    events: int = 0


class ClientMetrics(Collector):
    """Collects what the master learns from records and from the workers' pulses."""

    def __init__(self) -> None:
        self._histograms: dict[Key, dict[str, LagHistogram]] = {}
        self._requests: dict[Key, dict[str, int]] = {}
        self._tokens: dict[Key, tuple[int, int]] = {}
        self._without_tpot: dict[Key, dict[str, int]] = {}
        self._workers: dict[str, WorkerFigures] = {}
        self.gauges: dict[str, float] = dict.fromkeys(GAUGES, 0)
        self.limited: tuple[str, str, bool] | None = None
        """Engine and cell of the block that runs or ran last, and whether the load generator was its limit."""
        self.contention: tuple[str, str, Contention] | None = None
        """Engine and cell of the block that a campaign told of last, and what else the machine did."""
        self.block: dict[str, str] | None = None
        """Labels of the block that runs now."""
        self._slo: Slo | None = None
        """Of the block that runs now or ran last."""

    def begin_block(self, plan: BlockPlan) -> None:
        """A block runs from now on. Its counters begin at zero, so that rates and rises hold its first requests too."""
        engine, cell = plan.endpoint.name, plan.cell.id
        named = {"run_id": plan.run_id, "scenario": plan.scenario, "block": plan.block}
        self.block = {**named, "engine": engine, "cell": cell, "load": plan.cell.load_text}
        self._slo = plan.slo
        key = self._bounded((engine, plan.endpoint.model, plan.scenario, cell))
        self._requests.setdefault(key, {}).setdefault("ok", 0)
        self._tokens.setdefault(key, (0, 0))
        self._without_of(key)
        self._histograms_of(key)

    def _bounded(self, key: Key) -> Key:
        """The key, or that of all others where there are too many."""
        return key if key in self._requests or len(self._requests) < MAX_SERIES else ("other",) * len(LABELS)

    def _histograms_of(self, key: Key) -> dict[str, LagHistogram]:
        return self._histograms.setdefault(key, {name: LagHistogram(GRID_NS) for name in HISTOGRAMS})

    def _without_of(self, key: Key) -> dict[str, int]:
        return self._without_tpot.setdefault(key, dict.fromkeys(map(str, NO_TPOT), 0))

    def observe(self, record: RequestRecord, scenario: str) -> None:
        """Count one request of any phase. Requests that the load generator ended itself are counted as aborted only."""
        lags = self._worker(record.worker).lags
        lags["read"].add(record.read_lags_ns)
        late = schedule_lag_ns(record)
        if late is not None:
            lags["schedule"].add([late])
        key = self._bounded((record.engine, record.model, scenario, record.cell))
        outcomes = self._requests.setdefault(key, {})
        outcome = record.error or "ok"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        prompt, output = self._tokens.get(key, (0, 0))
        self._tokens[key] = (prompt + (record.prompt_tokens or 0), output + (record.output_tokens or 0))
        if not record.ok:
            return
        if carries_none(record):
            self._without_of(key)[str(record.tpot_basis)] += 1
        histograms = self._histograms_of(key)
        for name, value in (("ttft", ttft_ms(record)), ("tpot", tpot_ms(record)), ("e2e", e2e_ms(record))):
            if value is not None:
                histograms[name].add([value * NS_PER_MS])
        if record.events > 1:
            histograms["itl"].add((itl_ms(record) * NS_PER_MS).tolist())

    def take_pulse(self, pulse: Pulse) -> None:
        """Take what a worker tells of itself."""
        worker = self._worker(pulse.worker)
        worker.lags["loop"], worker.gc_seconds = pulse.process.loop_lag, pulse.process.gc_total_s
        worker.cpu_seconds, worker.events = pulse.cpu_seconds, pulse.events

    def _worker(self, name: str) -> WorkerFigures:
        """A worker's figures. A worker that is started anew has a new name: the oldest names are forgotten."""
        if name not in self._workers:
            self._workers[name] = WorkerFigures()
            while len(self._workers) > MAX_WORKERS:
                del self._workers[next(iter(self._workers))]
        return self._workers[name]

    def collect(self) -> Iterable[Metric]:
        """Yield all metric families."""
        for name, text in HISTOGRAMS.items():
            yield _histograms(f"{name}_seconds", text, LABELS, {k: own[name] for k, own in self._histograms.items()})
        outcomes = (((*key, what), count) for key, own in self._requests.items() for what, count in own.items())
        text = "Requests by outcome: ok, aborted or an error kind."
        yield _family(CounterMetricFamily, "requests", text, (*LABELS, "outcome"), outcomes)
        reasons = (((*key, why), count) for key, own in self._without_tpot.items() for why, count in own.items())
        text = "Requests that succeeded and have no TPOT because of how their answer was streamed, by the reason."
        yield _family(CounterMetricFamily, "without_tpot", text, (*LABELS, "reason"), reasons)
        for place, name in enumerate(("prompt", "output")):
            tokens = ((key, own[place]) for key, own in self._tokens.items())
            text = f"{name.capitalize()} tokens as the server counted them."
            yield _family(CounterMetricFamily, f"{name}_tokens", text, LABELS, tokens)
        for name, text in GAUGES.items():
            yield _family(GaugeMetricFamily, name, text, (), [((), self.gauges[name])])
        yield from self._collect_workers()
        text = "Whether the load generator is the limit of the block that runs or ran last."
        limited = [(self.limited[:2], float(self.limited[2]))] if self.limited is not None else []
        yield _family(GaugeMetricFamily, "limited", text, ("engine", "cell"), limited)
        yield from self._collect_contention()
        now = [(tuple(self.block[label] for label in BLOCK_LABELS), 1.0)] if self.block is not None else []
        yield _family(GaugeMetricFamily, "block_info", "The block that runs now.", BLOCK_LABELS, now)
        yield from self._collect_slo()

    def _collect_slo(self) -> Iterable[Metric]:
        """The scenario's objective, while a block runs whose scenario has one."""
        slo = self._slo if self.block is not None else None
        limits = [((name.removesuffix("_ms"),), most / 1000) for name, most in slo.limits().items()] if slo else []
        text = "The most that the scenario's SLO allows, of the block that runs now."
        yield _family(GaugeMetricFamily, "slo_seconds", text, ("limit",), limits)
        text = "The share of requests that are to keep all limits of that SLO."
        yield _family(GaugeMetricFamily, "slo_ratio", text, (), [((), slo.share)] if slo else [])

    def _collect_contention(self) -> Iterable[Metric]:
        engine, cell, reading = self.contention or ("", "", None)
        shared = [((engine, cell), float(bool(reading.findings)))] if reading else []
        text = "Whether something else on the machine disturbs the block that runs or ran last."
        yield _family(GaugeMetricFamily, "contention", text, ("engine", "cell"), shared)
        shares = [
            ((engine, cell, side, kind), value)
            for side in SIDES
            if reading is not None and (found := getattr(reading, side)) is not None
            for kind in SHARES
            if (value := getattr(found, f"{kind}_share")) is not None
        ]
        text = "What became of the time of a side's cores, and of its processes, in that block."
        yield _family(GaugeMetricFamily, "contention_ratio", text, ("engine", "cell", "side", "kind"), shares)

    def _collect_workers(self) -> Iterable[Metric]:
        workers = self._workers.items()
        for name, text, figure in (
            ("worker_cpu_seconds", "CPU time of a worker process.", "cpu_seconds"),
            ("worker_events", "Content events read by a worker.", "events"),
            ("gc_pause_seconds", "Time that garbage collection paused a worker.", "gc_seconds"),
        ):
            values = (((worker,), getattr(own, figure)) for worker, own in workers)
            yield _family(CounterMetricFamily, name, text, ("worker",), values)
        for name, text in LAGS.items():
            yield _histograms(f"{name}_lag_seconds", text, ("worker",), {(w,): own.lags[name] for w, own in workers})


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    labels: Key,
    values: Iterable[tuple[Key, float]],
) -> Metric:
    family = kind(f"bakeoff_client_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _histograms(name: str, text: str, labels: Key, values: Mapping[Key, LagHistogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"bakeoff_client_{name}", text, labels=labels)
    for key, histogram in values.items():
        family.add_metric(key, histogram.buckets(), histogram.sum_ns / 1e9)
    return family
