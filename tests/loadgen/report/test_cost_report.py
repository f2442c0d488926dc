"""What money the report shows, and where it keeps silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.capacity.search import Found
from loadgen.errors import UserError
from loadgen.monitoring.energy import EnergyRow
from loadgen.report import ReportPaths, report_data, write_report
from loadgen.report.capacity import CapacityRow
from loadgen.report.cost import costs_of
from loadgen.report.gpus import gpus_of
from loadgen.runs.manifest import Manifest
from loadgen.scenario.cost import Cost, priced
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import SyntheticRun

SCENARIO: dict[str, Any] = {"name": "known", "question": "Which is cheaper?", "prompt_tokens": [512]}
SCENARIO |= {"output_tokens": [8], "load": {"concurrency": [4]}, "requests": 100, "warmup_requests": 1, "repeats": 4}
TRUTHS = {"vllm": Truth(ttft_ms=80.0), "ksana": Truth(ttft_ms=120.0)}


def reported(folder: Path, cost: dict[str, Any] | None, truths: dict[str, Truth], **more: Any) -> ReportPaths:
    scenario = SCENARIO | ({} if cost is None else {"cost": cost})
    run = known_run(folder, "run", truths=truths, repeats=4, manifest={"scenario": scenario})
    return write_report(run, prometheus_url=None, **more)


def test_money_in_every_form(tmp_path: Path) -> None:
    cost = {"gpu_hour": 2.5, "currency": "EUR", "engine_gpus": {"ksana": 2}}
    paths = reported(tmp_path, cost, TRUTHS)
    document = json.loads(paths.summary.read_text())
    found, (cell,) = document["cost"], document["cells"]
    assert found["gpus"] == {"vllm": 1, "ksana": 2}
    for row in found["cells"]:
        gpus, entry = found["gpus"][row["engine"]], cell["engines"][row["engine"]]
        speed, total = entry["summary"]["output_tokens_per_s"], entry["summary"]["total_tokens_per_s"]
        money = row["per_million_output_tokens"]
        assert money["estimate"] == pytest.approx(2.5 * gpus / 3600 * 1e6 / speed)
        ends = entry["ci95"]["output_tokens_per_s"]
        assert money["ci95"] == pytest.approx([2.5 * gpus / 3600 * 1e6 / end for end in reversed(ends)])
        whole = row["per_million_tokens"]
        assert whole["estimate"] == pytest.approx(2.5 * gpus / 3600 * 1e6 / total)
        assert whole["ci95"][0] / whole["estimate"] == pytest.approx(money["ci95"][0] / money["estimate"])
        assert row["output_tokens_per_s_per_gpu"] == pytest.approx(speed / gpus)
        assert row["output_tokens_per_s_per_user"] == pytest.approx(1000 / entry["summary"]["tpot_ms"]["mean"])
    judged = document["statistics"][0]["cells"][0]["metrics"]["output_tokens_per_s"]
    assert judged["verdict"] == "a"
    (saved,) = [row for row in found["savings"] if row["cell"] is not None]
    assert saved["cheaper"] == "vllm"
    assert saved["share"] == pytest.approx(1 - judged["ratio"]["estimate"] / 2)
    page = check(paths.html.read_text(encoding="utf-8"))
    assert "EUR" in page.text and any(name.startswith("per-gpu-e1") for ids in page.svgs for name in ids)
    assert "(report_files/cost.png)" in paths.markdown.read_text()
    assert "less than ksana" in paths.markdown.read_text() and "ksana on 2 GPUs" in paths.markdown.read_text()


@pytest.mark.usefixtures("undrawn")
def test_between_equal_engines_no_saving_is_claimed(tmp_path: Path) -> None:
    paths = reported(tmp_path, {"gpu_hour": 2.5}, dict.fromkeys(TRUTHS, Truth()))
    found = json.loads(paths.summary.read_text())
    assert found["statistics"][0]["overall"]["output_tokens_per_s"]["verdict"] not in ("a", "b")
    assert all(row["cheaper"] is None and row["share"] is None for row in found["cost"]["savings"])
    assert "no saving is claimed" in paths.markdown.read_text()
    assert "less than" not in paths.markdown.read_text().partition("## Cost")[2].partition("\n## ")[0]


@pytest.mark.usefixtures("undrawn")
def test_without_a_price_nothing_is_shown(tmp_path: Path) -> None:
    paths = reported(tmp_path, None, TRUTHS)
    assert json.loads(paths.summary.read_text())["cost"] is None
    assert "## Cost" not in paths.markdown.read_text() and 'id="cost"' not in paths.html.read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_price_of_the_command_line_goes_over_the_scenarios(tmp_path: Path) -> None:
    cost = {"gpu_hour": 2.5, "gpus": 4}
    found = json.loads(reported(tmp_path, cost, TRUTHS, gpu_hour=7.0).summary.read_text())["cost"]
    assert (found["gpu_hour"], found["gpus"]) == (7.0, {"vllm": 4, "ksana": 4})
    for price in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="--gpu-hour"):
            priced(None, price)


def test_gpus_of_an_engine_follow_the_serving_settings_unless_told() -> None:
    manifest = Manifest(run_id="r", started_at=0, scenario=SCENARIO | {"serving": {"tensor_parallel_size": 2}})
    for cost, gpus in ((None, 2), (Cost(gpu_hour=1.0), 2), (Cost(gpu_hour=1.0, gpus=4), 4)):
        assert gpus_of(manifest, ["a"], cost) == {"a": gpus}
    with pytest.raises(UserError, match="'ksana'"):
        Cost(gpu_hour=1.0, engine_gpus={"ksana": 2}).check_engines(["vllm"])


def capacity(of: Any, load: float | None, low: float | None, high: float | None) -> CapacityRow:
    return CapacityRow("vllm", 512, 64, 0.0, of, Found(load, low, high, 5, 1000, complete=True), limited=False)


def test_at_the_capacity(tmp_path: Path) -> None:
    """A rate by hand: 10 requests a second of 64 tokens are 640; 3.6 an hour is a thousandth a second."""
    data = report_data(SyntheticRun().add_all().write(tmp_path), prometheus_url=None)
    energy = [EnergyRow("vllm", data.cells[0].id, 50.0, 10.0, 100.0, 1)]
    rows = [
        capacity("rate", 10.0, 8.0, 12.5),
        capacity("rate", None, 8.0, None),
        capacity("concurrency", 6.0, 4.0, 8.0),
    ]
    found = costs_of(Cost(gpu_hour=3.6), data.gpus, data.cells, rows, [], energy)
    rate, open_end, users = found.capacity
    assert rate.output.estimate == pytest.approx(1000 / 640)
    assert rate.output.ci95 == pytest.approx((1000 / 800, 1000 / 512))
    assert rate.total.estimate == pytest.approx(1000 / (10 * 576))
    assert (open_end.output.estimate, open_end.output.low) == (None, None)
    assert open_end.output.high == pytest.approx(1000 / 512)
    at = {
        view.cell.concurrency: view.engines["vllm"]
        for view in data.cells
        if view.cell and view.cell.prompt_tokens == 512
    }
    speeds = [entry.summary.output_tokens_per_s for load in (4, 8) if (entry := at[load]).summary is not None]
    assert users.output.estimate == pytest.approx(1000 / (sum(float(speed or 0) for speed in speeds) / 2))
    assert users.output.low is not None and users.output.high is not None
    assert users.output.low < users.output.estimate < users.output.high  # type: ignore[operator]
    assert [row.joules for row in found.rows if row.joules is not None] == [0.5]
