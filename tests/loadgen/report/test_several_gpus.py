"""The report of engines with several GPUs: what more are worth, what each gives, and what each went through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.analysis.scaling import families
from loadgen.monitoring.engine_samples import SAMPLES_FILE, BlockSamples, append_samples
from loadgen.report import ReportPaths, write_report
from loadgen.report.gpus import gpus_of, kind_of
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.cell import Cell
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.report.html_check import check

CELLS = (Cell(512, 8, 4), Cell(512, 8, 16))
TRUTHS = {"four": Truth(ttft_ms=30.0, tpot_ms=3.0), "one": Truth(), "two": Truth(ttft_ms=50.0, tpot_ms=4.0)}
SIZES = {"four": 4, "one": 1, "two": 2}
SCENARIO: dict[str, Any] = {
    **{"name": "known", "question": "What is a GPU more worth?", "prompt_tokens": [512], "output_tokens": [8]},
    **{"load": {"concurrency": [4, 16]}, "requests": 100, "warmup_requests": 1, "repeats": 4},
}


def made(folder: Path, sizes: dict[str, int], **more: Any) -> RunFolder:
    variants = {name: {"engine": "vllm", "serving": {"tensor_parallel_size": size}} for name, size in sizes.items()}
    scenario = SCENARIO | {"engines": list(sizes), "variants": variants} | more
    host = {"gpus": [{"name": "NVIDIA H200", "uuid": f"GPU-{n}"} for n in range(4)]}
    truths = {name: TRUTHS[name] for name in sizes}
    return known_run(
        folder,
        "run",
        truths=truths,
        cells=CELLS,
        repeats=4,
        requests=100,
        manifest={"scenario": scenario, "host": host},
    )


def rate(truth: Truth) -> float:
    """Answers a second of one user: its first token, seven more, and a pause of 1 ms."""
    return 1000 / (truth.ttft_ms + 7 * truth.tpot_ms + 1)


def read(paths: ReportPaths) -> dict[str, Any]:
    return dict(json.loads(paths.summary.read_text()))


def test_each_engine_is_compared_with_the_fewest_gpus(tmp_path: Path) -> None:
    paths = write_report(made(tmp_path, SIZES), prometheus_url=None)
    document = read(paths)
    assert document["gpus"] == SIZES
    found = {(step["engine"], step["cell"]): step for step in document["scaling"]}
    assert found.keys() == {(name, cell) for name in ("two", "four") for cell in (None, *(c.id for c in CELLS))}
    for (name, _), step in found.items():
        assert (step["base"], step["base_gpus"], step["gpus"], step["verdict"]) == ("one", 1, SIZES[name], "b")
        ratio = rate(TRUTHS[name]) / rate(TRUTHS["one"])
        assert step["throughput"]["estimate"] == pytest.approx(ratio, rel=0.02)
        low, high = step["throughput"]["ci95"]
        assert low < step["throughput"]["estimate"] < high
        assert step["efficiency"]["ci95"] == pytest.approx([low / SIZES[name], high / SIZES[name]])
        assert step["gpu_more"]["estimate"] == pytest.approx((ratio - 1) / (SIZES[name] - 1), rel=0.06)
        assert step["ttft"]["estimate"] == pytest.approx(TRUTHS[name].ttft_ms / 80, rel=0.02)
        assert step["tpot"]["estimate"] == pytest.approx(TRUTHS[name].tpot_ms / 5, rel=0.02)
    assert {one["a"] for one in document["statistics"]} == {"four"}, "the race's own comparisons stay as they are"
    text = paths.markdown.read_text()
    assert "## Several GPUs" in text and "two on 2 GPUs makes " in text and "four on 4 GPUs makes " in text
    page = check(paths.html.read_text(encoding="utf-8"))
    ids = {name for svg in page.svgs for name in svg}
    assert {"scaling0-e0-0", "scaling0-e2-1", "scaling0-base"} <= ids
    assert any(name.startswith("per-gpu-e1") for name in ids), "the frontier needs no price"
    chinese = write_report(RunFolder(paths.summary.parent), prometheus_url=None, language="zh")
    assert "Several GPUs" not in chinese.html.read_text()


@pytest.mark.usefixtures("undrawn")
def test_tokens_of_each_gpu_without_another_size_to_compare_with(tmp_path: Path) -> None:
    paths = write_report(made(tmp_path, {"one": 2, "two": 2}), prometheus_url=None)
    document = read(paths)
    assert document["scaling"] == [] and document["gpus"] == {"one": 2, "two": 2}
    section = paths.markdown.read_text().partition("## Several GPUs")[2].partition("\n## ")[0]
    speed = document["cells"][0]["engines"]["two"]["summary"]["output_tokens_per_s"]
    (row,) = [line for line in section.splitlines() if line.startswith("| 512 × 4 | two ")]
    assert [cell.strip() for cell in row.split("|")][3:6] == ["2", f"{speed:,.0f}", f"{speed / 2:,.0f}"]
    assert "efficiency" not in section


@pytest.mark.usefixtures("undrawn")
def test_on_single_gpus_there_is_no_such_section(tmp_path: Path) -> None:
    paths = write_report(made(tmp_path, {"one": 1, "two": 1}), prometheus_url=None)
    assert "Several GPUs" not in paths.markdown.read_text() and 'id="gpus"' not in paths.html.read_text()
    assert "GPU cards" not in paths.markdown.read_text() and 'id="cards"' not in paths.html.read_text()


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_claimed_of_equals(tmp_path: Path) -> None:
    scenario = {"engines": ["a", "b"], "variants": {n: {"engine": "vllm"} for n in "ab"}, "cost": {"gpu_hour": 2.0}}
    scenario["cost"] |= {"engine_gpus": {"b": 2}}
    truths = dict.fromkeys("ab", Truth())
    run = known_run(tmp_path, "r", truths=truths, cells=CELLS, repeats=4, manifest={"scenario": SCENARIO | scenario})
    paths = write_report(run, prometheus_url=None)
    assert read(paths)["gpus"] == {"a": 1, "b": 2}, "as the price has it"
    assert {step["verdict"] for step in read(paths)["scaling"]} <= {"none", "undecided"}
    text = paths.markdown.read_text()
    assert "makes no more output tokens than a on 1 GPU" in text or "is undecided" in text
    assert "each GPU more is worth" not in text
    section = text.partition("## Several GPUs")[2].partition("\n## ")[0]
    ratios = [line.split("|")[7].strip() for line in section.splitlines() if line.startswith("| 512 × ")]
    assert len(ratios) == 4 and all(ratio == "base" or ratio[:2] in ("? ", "= ") for ratio in ratios), ratios


def test_gpus_of_an_engine_as_it_was_set_up() -> None:
    scenario = {"variants": {"a": {"engine": "vllm", "serving": {"data_parallel_size": 2}}}}
    scenario["serving"] = {"tensor_parallel_size": 4}
    told = {"serving": [{"setting": "tensor_parallel_size", "outcome": "not honoured"}]}
    facts = EngineFacts(name="b", kind="ksana", api="chat", base_url="http://x", model="m", launch=told)
    manifest = Manifest(run_id="r", started_at=0, scenario=scenario, engines=[facts])
    assert gpus_of(manifest, ["a", "b", "c"]) == {"a": 8, "b": 1, "c": 4}


def test_engines_that_ran_together_are_compared_with_those_that_did() -> None:
    sizes = {"one": 1, "two": 2}
    scenario = {"variants": {n: {"engine": "vllm", "serving": {"tensor_parallel_size": k}} for n, k in sizes.items()}}
    facts = [EngineFacts(name=name, kind="vllm", api="chat", base_url="http://x", model="m") for name in sizes]
    manifest = Manifest(run_id="r", started_at=0, scenario=scenario, engines=facts)
    gpus = gpus_of(manifest, ["one", "two", "one-together", "two-together"])
    assert gpus == {"one": 1, "two": 2, "one-together": 1, "two-together": 2}
    assert families(gpus, kind_of(manifest)) == [["one", "two"], ["one-together", "two-together"]]


def test_who_was_on_which_gpus(tmp_path: Path) -> None:
    """One engine over GPUs 1 and 2, one on GPU 0, one that the exporter does not know."""
    run = made(tmp_path, SIZES)
    seen = {"one": (0,), "two": (1, 2), "four": ()}
    manifest = json.loads(run.manifest_path.read_text())
    for facts in manifest["engines"]:
        facts["launch"]["gpus"] = {
            "device_ids": {"one": ["0"], "two": ["GPU-1", "GPU-2a"], "four": ["0", "3"]}[facts["name"]]
        }
    run.manifest_path.write_text(json.dumps(manifest))
    for block in run.load().blocks:
        window = block.cut.window
        assert window is not None
        rows = []
        for at in range(window.start_ns // 10**9 - 1, window.end_ns // 10**9 + 3):
            row = {f"gpu_watts:{gpu}": 500.0 + gpu for gpu in range(4)}
            row |= {f"gpu_nvlink_{way}:{gpu}": gpu * 3e9 * (at % 10**6) for gpu in range(4) for way in ("tx", "rx")}
            row |= {f"gpu_held_power_cap:{gpu}": float(gpu == 2) for gpu in range(4)}
            row |= {f"gpu_on:{gpu}": 1.0 for gpu in seen[block.facts.engine]}
            row |= {f"gpu_own:{gpu}": 2.0**30 * (gpu + 1) for gpu in seen[block.facts.engine]}
            rows.append((float(at), row))
        append_samples(run.path / SAMPLES_FILE, BlockSamples(block.facts.record_id, rows))
    paths = write_report(run, prometheus_url=None)
    document = read(paths)
    assert [(seat["engine"], seat["given"], seat["seen"], seat["names"]) for seat in document["cards"]] == [
        ("four", ["0", "3"], [], ["NVIDIA H200"]),
        ("one", ["0"], ["0"], ["NVIDIA H200"]),
        ("two", ["1", "GPU-2a"], ["1", "2"], ["NVIDIA H200"]),
    ]
    rows = {(row["engine"], row["cell"]): row["cards"] for row in document["engine_figures"]}
    two = rows["two", CELLS[0].id]
    assert [card["gpu"] for card in two] == ["1", "2"] and [card["power_watts"] for card in two] == [501, 502]
    seconds = two[1]["seconds"]
    assert two[1]["nvlink_transmit_bytes"] == pytest.approx(6e9 * seconds) and two[1]["held_down"] == {"power_cap": 1}
    assert two[0]["held_down"] == {}
    block = next(block for block in document["blocks"] if block["engine"] == "two")
    assert [card["gpu"] for card in block["engine_figures"]["cards"]] == ["1", "2"]
    section = paths.markdown.read_text().partition("## GPU cards")[2].partition("\n## ")[0]
    assert "two was on GPU 1 and 2 (NVIDIA H200); it was given 1 and GPU-2a." in section
    assert "four was given GPU 0 and 3; the GPU exporter did not tell where it was." in section
    (line,) = [line for line in section.splitlines() if line.startswith("| 512 × 4 | two | 2 ")]
    row = [cell.strip() for cell in line.split("|")]
    assert row[4:8] == ["3.00", "502", "power limit 100%", "6.00 / 6.00"]
    check(paths.html.read_text(encoding="utf-8"))
    fact = next(row for row in document["fairness"] if row["check"] == "launch: gpus.device_ids")
    assert fact["equal"] is None and "sets apart on purpose" in fact["detail"]
