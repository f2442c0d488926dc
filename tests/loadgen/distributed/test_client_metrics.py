"""The client's Prometheus metrics, read back by Prometheus' own parser and checked against the raw values."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadgen.client.health import LagHistogram, ProbeReport
from loadgen.contention.reading import Contention, Finding, Side
from loadgen.distributed import client_metrics
from loadgen.distributed.client_metrics import GRID_NS, MAX_SERIES, ClientMetrics
from loadgen.distributed.messages import Pulse
from loadgen.metrics.definitions import NO_TPOT
from loadgen.metrics.slo import Slo
from loadgen.record import TpotBasis
from tests.loadgen.records import MS, record

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
LABELS = {"engine": "e", "model": "m", "scenario": "s", "cell": "c"}


BOUNDS = [label for label, _ in LagHistogram(GRID_NS).buckets()[:-1]]


def plan(block: str, cell: str, slo: Slo | None = None) -> Any:
    """As much of a plan as the metrics look at."""
    named = {"run_id": "r", "scenario": "s", "block": block}
    named["cell"] = SimpleNamespace(id=cell, load_text="batch 4")
    return SimpleNamespace(**named, slo=slo, endpoint=SimpleNamespace(name="e", model="m"))


def pulse(worker: str, process: ProbeReport | None = None, cpu_seconds: float = 0.0, events: int = 0) -> Pulse:
    return Pulse(worker, 0, events, cpu_seconds, None, None, ProbeReport(), process or ProbeReport())


def scrape(metrics: ClientMetrics) -> Samples:
    """What a Prometheus would store after one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a sample twice"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset({**LABELS, **labels}.items())]


def request(send=0, offsets=(), **fields):
    return record(send, offsets, **{"engine": "e", "model": "m", "cell": "c", **fields})


gaps = st.lists(st.integers(1, 5 * 10**11), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(gaps, min_size=1, max_size=8))
def test_histograms_agree_with_an_oracle(streams):
    metrics = ClientMetrics()
    raw: dict[str, list[float]] = {"ttft": [], "tpot": [], "itl": [], "e2e": []}
    for stream in streams:
        offsets = [sum(stream[: i + 1]) for i in range(len(stream))]
        metrics.observe(request(7, offsets, output_tokens=len(offsets), prompt_tokens=4), "s")
        raw["ttft"].append(offsets[0] / 1e9)
        raw["e2e"].append(offsets[-1] / 1e9)
        raw["itl"] += [gap / 1e9 for gap in stream[1:]]
        if len(offsets) > 1:
            raw["tpot"].append((offsets[-1] - offsets[0]) / 1e9 / (len(offsets) - 1))
    samples = scrape(metrics)
    for name, values in raw.items():
        full = f"bakeoff_client_{name}_seconds"
        assert value(samples, f"{full}_count") == len(values)
        assert value(samples, f"{full}_sum") == pytest.approx(sum(values), rel=1e-9)
        assert value(samples, f"{full}_bucket", le="+Inf") == len(values)
        for label in BOUNDS:
            bound = float(label)
            # The label is rounded to six digits: values that near to the bound may lie on either side.
            sure = sum(v <= bound * (1 - 1e-5) for v in values)
            possible = sum(v <= bound * (1 + 1e-5) for v in values)
            assert sure <= value(samples, f"{full}_bucket", le=str(float(label))) <= possible


def test_one_geometric_grid_from_a_tenth_of_a_millisecond_to_minutes():
    bounds = [float(label) for label in BOUNDS]
    assert bounds == sorted(set(bounds))
    assert bounds[0] == pytest.approx(1e-4) and bounds[-1] > 300
    ratios = [b / a for a, b in itertools.pairwise(bounds)]
    assert ratios == pytest.approx([client_metrics.GRID_FACTOR] * len(ratios), rel=1e-4)
    assert 1.2 <= client_metrics.GRID_FACTOR <= 1.3


@pytest.mark.parametrize("index", [0, 10, 67])
def test_a_value_on_a_bound_belongs_to_its_bucket(index):
    histogram = LagHistogram(GRID_NS)
    histogram.add([GRID_NS[index]])
    assert [count for _, count in histogram.buckets()] == [0.0] * index + [1.0] * (len(GRID_NS) + 1 - index)


def test_counters_count_outcomes_and_tokens():
    metrics = ClientMetrics()
    metrics.observe(request(0, [MS, 2 * MS], prompt_tokens=4, output_tokens=2), "s")
    metrics.observe(request(0, [MS], prompt_tokens=4, output_tokens=1, error="stall_timeout"), "s")
    metrics.observe(request(0, [], error="http_503"), "s")
    metrics.observe(request(0, [MS], error="aborted"), "s")
    samples = scrape(metrics)
    for outcome in ("ok", "stall_timeout", "http_503", "aborted"):
        assert value(samples, "bakeoff_client_requests_total", outcome=outcome) == 1
    assert value(samples, "bakeoff_client_prompt_tokens_total") == 8
    assert value(samples, "bakeoff_client_output_tokens_total") == 3
    assert value(samples, "bakeoff_client_ttft_seconds_count") == 1, "latencies are those of successes"


def test_labels_are_bounded_and_nothing_is_lost():
    metrics = ClientMetrics()
    for i in range(MAX_SERIES + 50):
        for _ in range(2):
            metrics.observe(request(0, [MS, 2 * MS], cell=f"c{i}", prompt_tokens=4, output_tokens=2), "s")
    samples = scrape(metrics)
    requests = {key: count for key, count in samples.items() if key[0] == "bakeoff_client_requests_total"}
    assert len(requests) == MAX_SERIES + 1
    assert sum(requests.values()) == 2 * (MAX_SERIES + 50)
    other = dict.fromkeys(LABELS, "other")
    assert value(samples, "bakeoff_client_requests_total", outcome="ok", **other) == 100
    counts = [count for (name, _), count in samples.items() if name == "bakeoff_client_ttft_seconds_count"]
    assert sum(counts) == 2 * (MAX_SERIES + 50)


def test_gauges_workers_and_the_block():
    metrics = ClientMetrics()
    assert not any(name == "bakeoff_client_block_info" for name, _ in scrape(metrics))
    metrics.gauges.update(users=4, in_flight=3, workers=2, records_pending=1)
    metrics.take_pulse(pulse("w1", cpu_seconds=1.5, events=2000))
    metrics.begin_block(plan("b", "c"))
    samples = scrape(metrics)
    gauges = ("users", "in_flight", "workers", "records_pending")
    assert [samples[f"bakeoff_client_{name}", frozenset()] for name in gauges] == [4, 3, 2, 1]
    worker = frozenset({("worker", "w1")})
    assert samples["bakeoff_client_worker_cpu_seconds_total", worker] == 1.5
    assert samples["bakeoff_client_worker_events_total", worker] == 2000
    block = {"run_id": "r", "scenario": "s", "block": "b", "engine": "e", "cell": "c", "load": "batch 4"}
    assert samples["bakeoff_client_block_info", frozenset(block.items())] == 1


def test_the_slo_is_told_while_a_block_of_a_scenario_that_has_one_runs():
    metrics = ClientMetrics()
    told = lambda: {key: n for key, n in scrape(metrics).items() if key[0].startswith("bakeoff_client_slo")}  # noqa: E731
    metrics.begin_block(plan("b1", "c"))
    assert told() == {}
    metrics.begin_block(plan("b2", "c", Slo(ttft_ms=500, e2e_ms=2000, percentile=90)))
    assert told() == {
        ("bakeoff_client_slo_seconds", frozenset({("limit", "ttft")})): 0.5,
        ("bakeoff_client_slo_seconds", frozenset({("limit", "e2e")})): 2,
        ("bakeoff_client_slo_ratio", frozenset()): 0.9,
    }
    metrics.block = None
    assert told() == {}


def test_a_blocks_counters_begin_at_zero_and_keep_what_they_have():
    metrics = ClientMetrics()
    metrics.begin_block(plan("b1", "c"))
    samples = scrape(metrics)
    assert value(samples, "bakeoff_client_requests_total", outcome="ok") == 0
    assert value(samples, "bakeoff_client_output_tokens_total") == 0
    for name in ("ttft", "tpot", "itl", "e2e"):
        assert value(samples, f"bakeoff_client_{name}_seconds_bucket", le="+Inf") == 0
    metrics.observe(request(0, [MS, 2 * MS], prompt_tokens=4, output_tokens=2), "s")
    metrics.begin_block(plan("b2", "c"))
    samples = scrape(metrics)
    assert value(samples, "bakeoff_client_requests_total", outcome="ok") == 1
    assert value(samples, "bakeoff_client_output_tokens_total") == 2
    assert value(samples, "bakeoff_client_ttft_seconds_count") == 1


def test_blocks_beyond_the_bound_are_counted_as_other():
    metrics = ClientMetrics()
    for i in range(MAX_SERIES + 3):
        metrics.begin_block(plan("b", f"c{i}"))
    requests = [key for key in scrape(metrics) if key[0] == "bakeoff_client_requests_total"]
    assert len(requests) == MAX_SERIES + 1
    assert metrics.block is not None and metrics.block["cell"] == f"c{MAX_SERIES + 2}"


FOUND = (Finding("others", "engine", 0.4, voids=False),)


def test_what_workers_know_about_themselves():
    metrics = ClientMetrics()
    assert not any(name.startswith("bakeoff_client_limited") for name, _ in scrape(metrics))
    metrics.observe(request(9, [MS, 2 * MS], worker="w1", read_lags_ns=[MS, 3 * MS], t_intended=4), "s")
    metrics.observe(request(9, [MS], worker="w2"), "s")
    loop = LagHistogram()
    loop.add([5 * MS, 7 * MS])
    for _ in range(2):  # a worker tells its totals again and again
        metrics.take_pulse(pulse("w1", ProbeReport(loop_lag=loop, gc_total_s=0.25)))
    metrics.limited = ("e", "c", True)
    metrics.contention = ("e", "c", Contention(10.0, Side(1, (0,), others_share=0.4), None, findings=FOUND))
    samples = scrape(metrics)
    worker = frozenset({("worker", "w1")})
    found = {
        name: samples[f"bakeoff_client_{name}", worker] for name in ("read_lag_seconds_count", "read_lag_seconds_sum")
    }
    assert found == {"read_lag_seconds_count": 2, "read_lag_seconds_sum": pytest.approx(0.004)}
    assert samples["bakeoff_client_schedule_lag_seconds_sum", worker] == pytest.approx(5e-9)
    assert samples["bakeoff_client_schedule_lag_seconds_count", frozenset({("worker", "w2")})] == 0
    assert samples["bakeoff_client_loop_lag_seconds_count", worker] == 2
    assert samples["bakeoff_client_loop_lag_seconds_sum", worker] == pytest.approx(0.012)
    assert samples["bakeoff_client_gc_pause_seconds_total", worker] == 0.25
    block = frozenset({("engine", "e"), ("cell", "c")})
    assert samples["bakeoff_client_limited", block] == samples["bakeoff_client_contention", block] == 1
    others = block | {("side", "engine"), ("kind", "others")}
    assert {key: value for key, value in samples.items() if key[0] == "bakeoff_client_contention_ratio"} == {
        ("bakeoff_client_contention_ratio", others): 0.4
    }


def test_workers_that_come_and_go_do_not_add_up():
    metrics = ClientMetrics()
    for i in range(3 * client_metrics.MAX_WORKERS):
        metrics.take_pulse(pulse(f"w{i}"))
    workers = {dict(labels).get("worker") for _, labels in scrape(metrics)} - {None}
    assert len(workers) == client_metrics.MAX_WORKERS and f"w{i}" in workers


def test_labels_with_quotes_and_line_breaks_survive():
    metrics = ClientMetrics()
    model = 'a "model"\n\\ of é'
    metrics.observe(request(0, [MS], model=model, output_tokens=1), "s")
    assert value(scrape(metrics), "bakeoff_client_requests_total", model=model, outcome="ok") == 1


def test_what_has_no_tpot_is_counted_by_its_reason():
    metrics = ClientMetrics()
    metrics.begin_block(plan("b", "c"))
    name = "bakeoff_client_without_tpot_total"
    assert {value(scrape(metrics), name, reason=why) for why in NO_TPOT} == {0}, "so that rises hold the first"
    for basis in (*NO_TPOT, "clumps"):
        metrics.observe(request(0, [MS, 2 * MS], output_tokens=2, tpot_basis=TpotBasis(basis)), "s")
    metrics.observe(request(0, [MS, 2 * MS], output_tokens=2, tpot_basis=TpotBasis.CLUMPS, error="no_finish"), "s")
    metrics.observe(request(0, [MS, 2 * MS], output_tokens=2, tpot_basis=TpotBasis.EVENTS, tpot_tokens=1), "s")
    metrics.observe(request(0, [MS], output_tokens=1, tpot_basis=TpotBasis.ONE_TOKEN), "s")
    samples = scrape(metrics)
    assert {why: value(samples, name, reason=why) for why in NO_TPOT} == dict.fromkeys(NO_TPOT, 1) | {"clumps": 2}
    assert value(samples, "bakeoff_client_tpot_seconds_count") == 1
