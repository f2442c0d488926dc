"""The client's own Prometheus metrics, served by the Locust master: `bakeoff_client_*`.

Histograms share one geometric grid, so that engines and runs can be laid over each other. Labels are bounded:
past `MAX_SERIES` combinations of engine, model, scenario and cell, new cells are counted under `other`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loadgen.client.health import LagHistogram, ProbeReport, schedule_lag_ns
from loadgen.metrics.definitions import e2e_ms, tpot_ms, ttft_ms
from loadgen.metrics.summary import Floats, itl_ms
from loadgen.record import RequestRecord
from loadgen.traffic.plan import BlockPlan

GRID_FACTOR = 1.25
GRID_S: Floats = 1e-4 * np.power(GRID_FACTOR, np.arange(68, dtype=np.float64))
"""Upper bounds of the buckets in seconds: 0.1 ms to about 310 s, each 25% above the last."""
GRID_LABELS = [f"{bound:.6g}" for bound in GRID_S]
MAX_SERIES = 200
MAX_WORKERS = 100
LABELS = ("engine", "model", "scenario", "cell")
BLOCK_LABELS = ("run_id", "scenario", "block", "engine", "cell")
Key = tuple[str, ...]

HISTOGRAMS = {
    "ttft": "Time to first token, from the first byte sent to the first content event.",
    "tpot": "Time per output token after the first.",
    "itl": "Gaps between content events; an event may carry several tokens.",
    "e2e": "End-to-end latency, from the first byte sent to the last content event.",
}

LAGS = {
    "read": "How long content events lay in the kernel before a worker read them.",
    "schedule": "How long after the schedule wanted them requests were sent (open loop).",
    "loop": "How late a worker's event loop got round to what was due.",
}


class GridHistogram:
    """Counts on the shared grid."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = np.zeros(len(GRID_S) + 1, dtype=np.int64)
        self.total = 0.0

    def add(self, seconds: Floats) -> None:
        """Count values, seconds, shape (n,)."""
        np.add.at(self.counts, np.searchsorted(GRID_S, seconds, side="left"), 1)
        self.total += float(seconds.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, ending with +Inf."""
        return list(zip([*GRID_LABELS, "+Inf"], np.cumsum(self.counts).astype(float).tolist(), strict=True))


class ClientMetrics(Collector):
    """Collects what the master learns from records and from the workers' pulses."""

    def __init__(self) -> None:
        self._histograms: dict[Key, dict[str, GridHistogram]] = {}
        self._requests: dict[Key, dict[str, int]] = {}
        self._tokens: dict[Key, tuple[int, int]] = {}
        self.gauges: dict[str, float] = {"users": 0, "in_flight": 0, "workers": 0, "records_pending": 0}
        self.worker_totals: dict[str, tuple[float, float]] = {}
        """CPU seconds and content events by worker, since each started."""
        self._lags: dict[str, dict[str, LagHistogram]] = {}
        self._gc_seconds: dict[str, float] = {}
        self.limited: tuple[str, str, bool] | None = None
        """Engine and cell of the block that runs or ran last, and whether the load generator was its limit."""
        self.block: dict[str, str] | None = None
        """Labels of the block that runs now."""

    def begin_block(self, plan: BlockPlan) -> None:
        """A block runs from now on. Its counters begin at zero, so that rates and rises hold its first requests too."""
        engine, cell = plan.endpoint.name, plan.cell.id
        named = {"run_id": plan.run_id, "scenario": plan.scenario, "block": plan.block}
        self.block = {**named, "engine": engine, "cell": cell}
        key = self._bounded((engine, plan.endpoint.model, plan.scenario, cell))
        self._requests.setdefault(key, {}).setdefault("ok", 0)
        self._tokens.setdefault(key, (0, 0))
        self._histograms_of(key)

    def _bounded(self, key: Key) -> Key:
        """The key, or that of all others where there are too many."""
        return key if key in self._requests or len(self._requests) < MAX_SERIES else ("other",) * len(LABELS)

    def _histograms_of(self, key: Key) -> dict[str, GridHistogram]:
        return self._histograms.setdefault(key, {name: GridHistogram() for name in HISTOGRAMS})

    def observe(self, record: RequestRecord, scenario: str) -> None:
        """Count one request of any phase. Requests that the load generator ended itself are counted as aborted only."""
        lags = self._lags_of(record.worker)
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
        histograms = self._histograms_of(key)
        for name, value in (("ttft", ttft_ms(record)), ("tpot", tpot_ms(record)), ("e2e", e2e_ms(record))):
            if value is not None:
                histograms[name].add(np.array([value / 1e3]))
        if record.events > 1:
            histograms["itl"].add(itl_ms(record) / 1e3)

    def take_process(self, worker: str, report: ProbeReport) -> None:
        """Take what a worker's probe has seen since its process started."""
        self._lags_of(worker)["loop"] = report.loop_lag
        self._gc_seconds[worker] = report.gc_total_s

    def _lags_of(self, worker: str) -> dict[str, LagHistogram]:
        """A worker's lags. A worker that is started anew has a new name: the oldest names are forgotten."""
        if worker not in self._lags:
            self._lags[worker] = {name: LagHistogram() for name in LAGS}
            while len(self._lags) > MAX_WORKERS:
                oldest = next(iter(self._lags))
                del self._lags[oldest]
                self._gc_seconds.pop(oldest, None)
        return self._lags[worker]

    def _collect_health(self) -> Iterable[Metric]:
        for name, text in LAGS.items():
            family = HistogramMetricFamily(f"bakeoff_client_{name}_lag_seconds", text, labels=("worker",))
            for worker, lags in self._lags.items():
                family.add_metric([worker], lags[name].buckets(), lags[name].sum_ns / 1e9)
            yield family
        pauses = CounterMetricFamily(
            "bakeoff_client_gc_pause_seconds", "Time that garbage collection paused a worker.", labels=("worker",)
        )
        for worker, seconds in self._gc_seconds.items():
            pauses.add_metric([worker], seconds)
        yield pauses
        limited = GaugeMetricFamily(
            "bakeoff_client_limited",
            "Whether the load generator is the limit of the block that runs or ran last.",
            labels=("engine", "cell"),
        )
        if self.limited is not None:
            engine, cell, value = self.limited
            limited.add_metric([engine, cell], float(value))
        yield limited

    def collect(self) -> Iterable[Metric]:
        """Yield all metric families."""
        for name, text in HISTOGRAMS.items():
            family = HistogramMetricFamily(f"bakeoff_client_{name}_seconds", text, labels=LABELS)
            for key, histograms in self._histograms.items():
                family.add_metric(key, histograms[name].buckets(), histograms[name].total)
            yield family
        requests = CounterMetricFamily(
            "bakeoff_client_requests", "Requests by outcome: ok, aborted or an error kind.", labels=(*LABELS, "outcome")
        )
        for key, outcomes in self._requests.items():
            for outcome, count in outcomes.items():
                requests.add_metric((*key, outcome), count)
        yield requests
        prompt = CounterMetricFamily(
            "bakeoff_client_prompt_tokens", "Prompt tokens as the server counted them.", labels=LABELS
        )
        output = CounterMetricFamily(
            "bakeoff_client_output_tokens", "Output tokens as the server counted them.", labels=LABELS
        )
        for key, (prompt_tokens, output_tokens) in self._tokens.items():
            prompt.add_metric(key, prompt_tokens)
            output.add_metric(key, output_tokens)
        yield prompt
        yield output
        for name, text in (
            ("users", "Simulated users."),
            ("in_flight", "Requests that were sent and have not ended."),
            ("workers", "Locust workers connected."),
            ("records_pending", "Records of requests that are not on disk yet."),
        ):
            yield GaugeMetricFamily(f"bakeoff_client_{name}", text, value=self.gauges[name])
        cpu = CounterMetricFamily(
            "bakeoff_client_worker_cpu_seconds", "CPU time of a worker process.", labels=("worker",)
        )
        events = CounterMetricFamily(
            "bakeoff_client_worker_events", "Content events read by a worker.", labels=("worker",)
        )
        for worker, (seconds, read) in self.worker_totals.items():
            cpu.add_metric((worker,), seconds)
            events.add_metric((worker,), read)
        yield cpu
        yield events
        yield from self._collect_health()
        info = GaugeMetricFamily("bakeoff_client_block_info", "The block that runs now.", labels=BLOCK_LABELS)
        if self.block is not None:
            info.add_metric([self.block[label] for label in BLOCK_LABELS], 1)
        yield info
