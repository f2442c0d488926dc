"""Energy from GPU counters, against counters whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen.analysis.prefill import fit_prefill, prefill_fits
from loadgen.monitoring.energy import joules
from loadgen.monitoring.engine_samples import SAMPLES_FILE, BlockSamples, append_samples
from loadgen.report import write_report
from tests.fake_prometheus import FakePrometheus
from tests.loadgen.monitoring.test_memory import known, prometheus
from tests.loadgen.report.html_check import check
from tests.loadgen.report.oracle import figures
from tests.loadgen.report.synthetic_run import START, SyntheticRun

__all__ = ["prometheus"]


def test_a_counter_is_read_on_a_straight_line() -> None:
    samples = [(10.0, 100.0), (11.0, 150.0), (12.0, 250.0)]
    assert joules(samples, 10.5, 11.5) == pytest.approx(75.0)
    assert joules(samples, 10.0, 12.0) == pytest.approx(150.0)
    assert joules(samples, 9.9, 11.0) is None and joules(samples, 11.0, 12.1) is None and joules([], 1, 2) is None


def test_gaps_and_new_starts_of_a_counter_give_nothing() -> None:
    assert joules([(0.0, 0.0), (11.0, 1.0)], 1.0, 2.0) is None
    assert joules([(0.0, 500.0), (1.0, 3.0), (2.0, 9.0)], 0.5, 1.5) is None
    assert joules([(0.0, 500.0), (1.0, 3.0), (2.0, 9.0), (3.0, 15.0)], 1.5, 2.5) == pytest.approx(6.0)


def counters(run: SyntheticRun) -> list[dict[str, object]]:
    """Two GPUs: 300 W and 50 W throughout."""
    seconds = range(int(run.now) + 30)
    return [
        {
            "metric": {"gpu": str(gpu), "uuid": f"GPU-{gpu}"},
            "values": [[START + s, str(1e6 + watts * s)] for s in seconds],
        }
        for gpu, watts in ((0, 300), (1, 50))
    ]


@pytest.mark.usefixtures("undrawn")
def test_energy_of_a_run(prometheus: FakePrometheus, tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(2,), requests=10, repeats=2).add_all()
    folder = run.write(tmp_path)
    prometheus.answer = known(run, counters(run))
    paths = write_report(folder, prometheus_url=prometheus.url)
    rows = json.loads(paths.summary.read_text())["energy"]
    assert [row["engine"] for row in rows] == ["llamacpp", "vllm"]
    for row in rows:
        blocks = [f"{row['engine']}.{row['cell']}.r{repeat}" for repeat in (1, 2)]
        truth = figures(folder.records_path, blocks, 2, 10)
        assert row["joules"] == pytest.approx(350 * truth["window_s"], rel=1e-6)
        assert row["watts"] == pytest.approx(350, rel=1e-6)
        tokens = truth["output_tokens_per_s"] * truth["window_s"]
        assert row["output_tokens_per_joule"] == pytest.approx(tokens / (350 * truth["window_s"]), rel=1e-6)
        assert row["blocks"] == 2
    again = write_report(folder, prometheus_url=None)
    assert json.loads(again.summary.read_text())["energy"] == rows, "kept in the folder"
    page = check(again.html.read_text(encoding="utf-8"))
    assert "tokens a joule" in page.text and "Energy of 2 GPUs" in page.text


@pytest.mark.usefixtures("undrawn")
def test_energy_is_of_the_gpus_that_an_engine_was_on_where_that_is_known_of_every_block(
    prometheus: FakePrometheus, tmp_path: Path
) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(2,), requests=10, repeats=2).add_all()
    folder = run.write(tmp_path)
    manifest = json.loads(folder.manifest_path.read_text())
    manifest["host"]["gpus"] = [{"uuid": "GPU-0"}, {"uuid": "GPU-1"}]
    folder.manifest_path.write_text(json.dumps(manifest))
    blocks = folder.load().blocks
    on = {"llamacpp": {"gpu_on:1": 1.0}, "vllm": {"gpu_on:0": 1.0}}
    for place, block in enumerate(blocks):
        window = block.cut.window
        assert window is not None
        at = range(window.start_ns // 10**9 - 1, window.end_ns // 10**9 + 3)
        read = [(float(second), on[block.facts.engine]) for second in at]
        append_samples(folder.path / SAMPLES_FILE, BlockSamples(block.facts.record_id, read))
        prometheus.answer = known(run, counters(run))
        paths = write_report(folder, prometheus_url=prometheus.url)
        told = json.loads(paths.summary.read_text())
        every = place == len(blocks) - 1
        assert told["energy_of"] == ("engine" if every else "all")
        watts = {row["engine"]: row["watts"] for row in told["energy"]}
        assert watts == pytest.approx({"llamacpp": 50, "vllm": 300} if every else {"llamacpp": 350, "vllm": 350})
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "Energy of the GPUs that each engine had processes on" in page.text


@pytest.mark.usefixtures("undrawn")
def test_without_a_gpu_the_report_says_why(prometheus: FakePrometheus, tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    folder = run.write(tmp_path)
    prometheus.answer = known(run)
    words = "Prometheus holds no bakeoff_gpu_energy_joules_total"
    assert words in write_report(folder, prometheus_url=prometheus.url).html.read_text()
    assert (
        "Energy: this report was made without a Prometheus."
        in write_report(folder, prometheus_url=None).html.read_text()
    )


def test_prefill_rate_of_known_points() -> None:
    import numpy as np

    tokens = np.array([100.0, 100.0, 300.0, 300.0])
    fit = fit_prefill("x", 1, [(tokens, 5 + tokens / 2 + np.array([1, -1, 1, -1])), (tokens, 5 + tokens / 2)])
    assert fit is not None and fit.rate == pytest.approx(2000) and fit.fixed_ms == pytest.approx(5)
    assert fit.ci95 is not None and fit.ci95[0] <= 2000 <= fit.ci95[1] and fit.repeats == 2
    assert fit.least is None and fit.fixed_ci95 is not None and fit.fixed_ci95[0] <= 5 <= fit.fixed_ci95[1]
    unsure = fit_prefill("x", 1, [(tokens, 50 + tokens / 10), (tokens, 50 - tokens / 12)])
    assert unsure is not None and unsure.rate is not None and unsure.ci95 is None
    slope = 0.1 / 2 - 1 / 24 + 12.7062 * (0.1 + 1 / 12) / 2  # Student's t with one degree of freedom
    assert unsure.least == pytest.approx(1000 / slope, rel=1e-4)
    flat = fit_prefill("x", 1, [(tokens, np.array([9.0, 9.0, 8.0, 8.0]))])
    assert flat is not None and flat.rate is None and flat.ci95 is None
    assert fit_prefill("x", 1, [(tokens[:2], tokens[:2])]) is None and fit_prefill("x", 1, []) is None


@pytest.mark.usefixtures("undrawn")
def test_prefill_by_least_squares_of_the_records(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(128, 512, 1024), concurrencies=(1, 4), requests=12, repeats=3).add_all()
    folder = run.write(tmp_path)
    document = json.loads(write_report(folder, prometheus_url=None).summary.read_text())
    lines = [json.loads(line) for line in folder.records_path.read_text().splitlines()]
    for fit in document["prefill"]:
        chosen = []
        for repeat in (1, 2, 3):
            for cell in document["cells"]:
                if cell["concurrency"] == 1:
                    block = f"{fit['engine']}.{cell['id']}.r{repeat}"
                    own = [r for r in lines if r["block"] == block and r["index"] > 0]
                    own.sort(key=lambda r: r["t_send"])
                    chosen += [(r["prompt_tokens"], (r["t_first"] - r["t_send"]) / 1e6) for r in own[:12]]
        n = len(chosen)
        assert fit["requests"] == n == 3 * 3 * 12
        mean_x, mean_y = sum(x for x, _ in chosen) / n, sum(y for _, y in chosen) / n
        slope = sum((x - mean_x) * (y - mean_y) for x, y in chosen) / sum((x - mean_x) ** 2 for x, _ in chosen)
        assert fit["tokens_per_s"] == pytest.approx(1000 / slope)
        assert fit["ci95"][0] < fit["tokens_per_s"] < fit["ci95"][1]


def test_no_prefill_rate_from_one_prompt_length(tmp_path: Path) -> None:
    run = SyntheticRun(prompts=(64,), concurrencies=(1, 2), requests=4).add_all()
    blocks = run.write(tmp_path).load().blocks
    assert prefill_fits(blocks, run.engines, {block.facts.record_id for block in blocks}) == []
