"""Keeping results, their medians, the tables and the document."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from benchmarks.client.document import Setting, document
from benchmarks.client.peers import PEERS
from benchmarks.client.results import PeerResult, Run, Store, medians
from benchmarks.client.table import rows, terminal_table

TITLES = {"bakeoff": "Bakeoff", "vllm": "vllm bench serve"}
BASIS = {"cpu": "A CPU", "cores": "2", "memory": "24 GiB", "kernel": "6.1", "Python": "3.11.7", "locust": "2.47.0"}


def run(load: str = "64", repeat: int = 0, **more: object) -> Run:
    figures = {"ttft_p50_ms": 0.1, "ttft_p99_ms": 0.3, "tpot_mean_percent": -0.01, "cpu_us_per_event": 12.5}
    return Run.model_validate({"peer": "bakeoff", "load": load, "repeat": repeat, "peak_mb": 80, **figures, **more})


def result(*runs: Run, **more: object) -> PeerResult:
    return PeerResult.model_validate({"peer": "bakeoff", "basis": BASIS, "runs": runs, **more})


def test_results_are_kept_and_those_of_another_basis_are_not_used(tmp_path):
    store = Store(tmp_path / "new")
    assert not store.load("bakeoff", BASIS).runs
    store.save(result(run()))
    assert store.load("bakeoff", BASIS).has("64", 0)
    assert store.load("bakeoff", None).basis == BASIS
    assert not store.load("bakeoff", {**BASIS, "locust": "2.48.0"}).runs
    (tmp_path / "new" / "bakeoff.json").write_text("{")
    assert not store.load("bakeoff", None).runs


def test_a_loads_first_run_drops_what_was_there_of_it():
    kept = result(run("64", 0), run("64", 1), run("1", 0))
    kept.put(run("64", 0, ttft_p50_ms=9))
    assert [(one.load, one.repeat) for one in kept.runs] == [("1", 0), ("64", 0)]
    kept.put(run("64", 1, error="it failed"))
    assert not kept.has("64", 1)
    kept.put(run("64", 1))
    assert kept.has("64", 1) and len(kept.of("64")) == 2


def test_medians_are_over_runs_that_have_the_figure():
    runs = [run(ttft_p50_ms=value, cpu_us_per_event=cpu) for value, cpu in ((3, None), (1, 20), (2, 10))]
    found = medians(runs)
    assert (found["ttft_p50_ms"], found["cpu_us_per_event"], found["tpot_p50_percent"]) == (2, 15, None)


def test_rows_are_ordered_and_failures_and_late_servers_show():
    results = [
        result(run("64", oracle_valid=False), run("blast"), run("16"), run("256", error="it broke")),
        PeerResult(peer="vllm", runs=[run("16"), run("64", error="it broke"), run("64", 1)]),
    ]
    found = rows(results, TITLES)
    assert [(row.load, row.peer) for row in found] == [
        ("16", "Bakeoff"),
        ("16", "vllm bench serve"),
        ("64", "Bakeoff*"),
        ("64", "vllm bench serve"),
        ("256", "Bakeoff"),
        ("blast", "Bakeoff"),
    ]
    assert found[0].cells == ("0.100", "0.300", "-", "-", "-0.010", "12.5", "80")
    assert found[4].cells[0] == "-" and found[4].note == "it broke"
    assert found[0].events_per_core_second == "80,000"


def test_the_table_fits_into_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    results = [PeerResult(peer=peer.name, runs=[run("256", ttft_p99_ms=12345.678)]) for peer in PEERS]
    console.print(terminal_table(rows(results, {peer.name: peer.title for peer in PEERS})))
    text = console.export_text()
    assert "12345.678" in text and "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_document_says_what_was_measured_on_what_and_what_was_not():
    setting = Setting("2026-11-22", BASIS, 0.2, "make bench-client", 21.3, 3, True)
    results = [
        result(run("64", command="bakeoff run URL"), run("blast"), measured_at="2026-11-22T10:00:00+00:00"),
        PeerResult(peer="guidellm", skipped="it needs torch\n  | more of the log"),
        PeerResult(peer="vllm", basis=BASIS, runs=[run("64", error="it failed with exit status 1:\n  | log")]),
    ]
    text = document(results, PEERS, setting)
    assert text.startswith("# ") and text.endswith("\n") and "\n\n\n" not in text
    for words in (
        *("A CPU", "2 cores", "Linux 6.1", "24 GiB", "2026-11-22", "21 minutes", "median of 3 runs", "SCHED_FIFO"),
        *("## 64 streams", "## Blast", "| Bakeoff | 0.100 | 0.300 |", "80,000", "locust 2.47.0", "bakeoff run URL"),
        *("GuideLLM was not measured: it needs torch\n", "vllm bench serve at load 64: it failed with exit status 1\n"),
    ):
        assert words in text, words
    assert "more of the log" not in text and "pessimistic" not in text
    assert "figures of all tools are pessimistic" in document(results, PEERS, replace(setting, load_average=3.0))
