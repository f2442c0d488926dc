"""The export as llm-d's benchmark report: llm-d's own package validates it, and figures are worked out anew."""

from __future__ import annotations

import math
import statistics

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from loadgen.cli.app import app
from loadgen.errors import UserError
from loadgen.export.files import export_run
from loadgen.export.llm_d import llm_d_report
from loadgen.scenario.model import Cell
from tests.loadgen.known_run import Truth, known_run


def reports(folder):
    return [YAML(typ="safe").load(path) for path in sorted(folder.glob("benchmark_report_v0.2.*.yaml"))]


def aggregate(report):
    return report["results"]["request_performance"]["aggregate"]


GPUS = {
    "stack": {"runtime": "docker"},
    "host": {"gpus": [{"name": "NVIDIA H200", "uuid": "GPU-1"}, {"name": "NVIDIA H200", "uuid": "GPU-2"}]},
    "scenario": {"serving": {"tensor_parallel_size": 2}, "shared_prefix_tokens": 32, "load": {"concurrency": [2]}},
}


@pytest.mark.parametrize("manifest", [{}, GPUS, {"engines": [], "scenario": {}, "packages": {}}])
@pytest.mark.parametrize("error_share", [0.0, 0.3, 1.0])
def test_llm_ds_own_validator_passes(tmp_path, manifest, error_share):
    validator = pytest.importorskip("llmd_benchmark_report")
    run = known_run(tmp_path, "a", Truth(error_share=error_share), repeats=2, requests=20, manifest=manifest).load()
    for path in export_run(run, "llm-d", tmp_path / "out").files:
        report = validator.import_benchmark_report(str(path))
        assert report.version == "0.2.1"
        # What the validator understood is all that was written: nothing was dropped or filled in.
        again = report.dump()
        (written,) = [YAML(typ="safe").load(path)]
        assert again["results"]["request_performance"] == written["results"]["request_performance"]
        assert again["scenario"]["load"]["standardized"].items() >= written["scenario"]["load"]["standardized"].items()


def test_figures_are_those_of_the_measured_requests(tmp_path):
    run = known_run(tmp_path, "a", Truth(error_share=0.1), repeats=1, requests=50).load()
    block = run.blocks[0]
    found = aggregate(llm_d_report(run.manifest, block, client_limited=False))
    good = [r for r in block.measured if r.error is None]
    firsts = sorted((r.t_first - r.t_send) / 1e6 for r in good)
    ttft, e2e = found["latency"]["time_to_first_token"], found["latency"]["request_latency"]
    assert found["requests"]["total"] == 50 and found["requests"]["failures"] == 50 - len(good) > 0
    assert ttft["units"] == "ms" and ttft["mean"] == pytest.approx(statistics.fmean(firsts))
    assert (ttft["min"], ttft["max"]) == (pytest.approx(firsts[0]), pytest.approx(firsts[-1]))
    assert ttft["p50"] == pytest.approx(statistics.median(firsts))
    assert ttft["stddev"] == pytest.approx(statistics.pstdev(firsts))
    whole = [(r.t_last - r.t_send) / 1e6 for r in good]
    assert e2e["mean"] == pytest.approx(statistics.fmean(whole))
    normalised = found["latency"]["normalized_time_per_output_token"]
    assert normalised["units"] == "ms/token" and normalised["mean"] == pytest.approx(statistics.fmean(whole) / 8)
    tpots = [(r.t_last - r.t_first) / 1e6 / 7 for r in good]
    assert found["latency"]["time_per_output_token"]["mean"] == pytest.approx(statistics.fmean(tpots))
    rates = {key: value["mean"] for key, value in found["throughput"].items()}
    assert rates["total_token_rate"] == pytest.approx(rates["input_token_rate"] + rates["output_token_rate"])


def test_itl_is_given_only_where_an_event_is_a_token(tmp_path):
    run = known_run(tmp_path, "a", repeats=1, requests=10).load()
    assert (
        "inter_token_latency" in aggregate(llm_d_report(run.manifest, run.blocks[0], client_limited=False))["latency"]
    )
    for record in run.blocks[0].records:
        record.output_tokens = 16
    assert (
        "inter_token_latency"
        not in aggregate(llm_d_report(run.manifest, run.blocks[0], client_limited=False))["latency"]
    )


def test_the_stack_is_an_inference_engine_only_where_its_gpus_are_known(tmp_path):
    plain = known_run(tmp_path, "a", repeats=1, requests=5).load()
    gpus = known_run(tmp_path, "b", repeats=1, requests=5, manifest=GPUS).load()
    (of_plain,), (of_gpus,) = (
        llm_d_report(run.manifest, run.blocks[0], client_limited=True)["scenario"]["stack"] for run in (plain, gpus)
    )
    assert of_plain["standardized"]["kind"] == "generic"
    accelerator = of_gpus["standardized"]["accelerator"]
    assert (accelerator["model"], accelerator["count"]) == ("NVIDIA H200", 2)


def test_reports_of_one_run_share_its_id_and_differ_in_their_own(tmp_path):
    known_run(tmp_path, "a", cells=(Cell(64, 8, 1), Cell(64, 8, 2)), repeats=2, requests=8)
    written = []
    for _ in range(2):
        done = CliRunner().invoke(app, ["export", "a", "--runs-dir", str(tmp_path), "--format", "llm-d"])
        assert done.exit_code == 0, done.output
        written.append(reports(tmp_path / "a" / "export-llm-d"))
    found = written[0]
    assert written[1] == found and len(found) == 4
    assert len({report["run"]["uid"] for report in found}) == 4
    assert len({report["run"]["eid"] for report in found}) == 1
    loads = [report["scenario"]["load"]["standardized"] for report in found]
    assert sorted(load["concurrency"] for load in loads) == [1, 1, 2, 2]
    assert all(math.isclose(load["input_seq_len"]["value"], 64) for load in loads)


def test_single_requests_have_no_place_in_it(tmp_path):
    run = known_run(tmp_path, "a", repeats=1, requests=5).load()
    with pytest.raises(UserError, match="--detailed"):
        export_run(run, "llm-d", tmp_path / "out", detailed=True)
