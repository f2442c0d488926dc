"""`bakeoff compare` over run folders whose truth is known: verdicts, exit codes, what is refused and what is told."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from loadgen.cli.app import app
from loadgen.errors import UserError
from loadgen.scenario.model import Cell
from tests.loadgen.known_run import Truth, known_run
from tests.loadgen.report.html_check import Page

BASE = Truth()
P95 = "ttft.p95 > +5%"


def slower(share: float) -> Truth:
    return dataclasses.replace(BASE, ttft_ms=BASE.ttft_ms * (1 + share))


def compare(runs, a="a", b="b", *more):
    """Run the command; returns its exit code, and what it printed or the error it ended with."""
    arguments = ["compare", a, b, "--runs-dir", str(runs), *more]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if isinstance(done.exception, UserError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def written(runs, a="a", b="b"):
    return json.loads((runs / b / f"compare-{a}" / "compare.json").read_text())


@pytest.mark.parametrize(("planted", "code"), [(0.08, 3), (0.01, 0)])
def test_a_planted_regression_decides_the_exit_code(tmp_path, planted, code):
    known_run(tmp_path, "a", BASE)
    known_run(tmp_path, "b", slower(planted), version="1.1")
    found, output = compare(tmp_path, "a", "b", "--fail-if", P95)
    assert found == code, output
    (decision,) = written(tmp_path)["thresholds"]
    low, high = decision["ci95"]
    assert low <= 100 * planted <= high
    assert (low > 5) == (code == 3) and (high < 5) == (code == 0)


@pytest.mark.parametrize("planted", [0.08, 0.01, 0.0])
def test_too_few_requests_decide_nothing(tmp_path, planted):
    known_run(tmp_path, "a", BASE, repeats=2, requests=12)
    known_run(tmp_path, "b", slower(planted), repeats=2, requests=12)
    assert compare(tmp_path, "a", "b", "--fail-if", P95)[0] == 4


def test_one_block_decides_nothing(tmp_path):
    known_run(tmp_path, "a", BASE, repeats=1, requests=400)
    known_run(tmp_path, "b", slower(0.5), repeats=1, requests=400)
    code, output = compare(tmp_path, "a", "b", "--fail-if", P95)
    assert code == 4 and "two repeats or more" in output


@pytest.mark.usefixtures("undrawn")
def test_limits_and_failures_of_b_count_and_those_of_a_do_not(tmp_path):
    cells = (Cell(512, 8, 2), Cell(1024, 8, 2))
    failing = dataclasses.replace(BASE, error_share=0.12)
    known_run(tmp_path, "good", BASE, cells=cells, requests=100)
    known_run(tmp_path, "bad", failing, cells=cells, requests=100)
    thresholds = ("--fail-if", "errors > 1%", "--fail-if", "errors > +1pp")
    assert compare(tmp_path, "bad", "good", *thresholds)[0] == 0
    code, output = compare(tmp_path, "good", "bad", *thresholds)
    assert code == 3
    assert [d["outcome"] for d in written(tmp_path, "good", "bad")["thresholds"]] == ["failed"] * 4
    assert "requests failed" in output  # such blocks decide nothing about latencies
    assert compare(tmp_path, "good", "bad", "--fail-if", "ttft.p50 > +50%")[0] == 4
    limit = ("--fail-if", "ttft.p50 > 90ms", "--fail-if", "ttft.p50 > 0.07s", "--fail-if", "requests_per_s < 1")
    assert compare(tmp_path, "bad", "good", *limit)[0] == 3
    outcomes = {(d["threshold"], d["outcome"]) for d in written(tmp_path, "bad", "good")["thresholds"]}
    assert outcomes == {
        ("ttft.p50 > 90ms", "held"),
        ("ttft.p50 > 0.07s", "failed"),
        ("requests_per_s < 1 req/s", "held"),
    }


def test_thresholds_of_bs_scenario_are_used_where_none_is_given(tmp_path):
    scenario = {"name": "known", "requests": 200, "fail_if": [P95]}
    known_run(tmp_path, "a", BASE, repeats=3, manifest={"scenario": scenario})
    known_run(tmp_path, "b", slower(0.3), repeats=3, manifest={"scenario": scenario})
    assert compare(tmp_path)[0] == 3
    assert compare(tmp_path, "a", "b", "--fail-if", "ttft.p95 > +90%")[0] == 0


def test_without_a_threshold_the_verdict_is_told_and_the_exit_code_is_0(tmp_path):
    known_run(tmp_path, "a", BASE, repeats=4)
    known_run(tmp_path, "b", slower(0.2), repeats=4)
    code, output = compare(tmp_path)
    assert code == 0
    assert "A vllm is faster: TTFT p50 by" in " ".join(output.split())
    statistics = written(tmp_path)["statistics"]
    ttft = statistics["cells"][0]["metrics"]["ttft_ms.p50"]
    assert ttft["verdict"] == "a" and ttft["ratio"]["ci95"][0] < 1.2 < ttft["ratio"]["ci95"][1]
    assert statistics["cells"][0]["metrics"]["tpot_ms.mean"]["verdict"] in ("none", "undecided")


def test_the_margin_is_that_of_bs_scenario(tmp_path):
    """3% apart: with the default margin of 2% a difference, and of no matter to who set 5%."""
    scenario = {"name": "known", "requests": 200}
    known_run(tmp_path, "a", BASE, manifest={"scenario": {**scenario, "margin": 0.3}})
    for run_id, told in (("b", scenario), ("c", {**scenario, "margin": 0.05})):
        known_run(tmp_path, run_id, slower(0.03), manifest={"scenario": told})
    verdicts = {}
    for run_id in ("b", "c"):
        assert compare(tmp_path, "a", run_id)[0] == 0
        found = written(tmp_path, "a", run_id)["statistics"]
        verdicts[run_id] = (found["settings"]["margin"], found["cells"][0]["metrics"]["ttft_ms.p50"]["verdict"])
    assert verdicts == {"b": (0.02, "a"), "c": (0.05, "none")}


def test_only_headline_metrics_name_a_winner(tmp_path):
    known_run(tmp_path, "a", BASE)
    known_run(tmp_path, "b", slower(0.2))
    code, output = compare(tmp_path)
    assert code == 0
    metrics = written(tmp_path)["statistics"]["cells"][0]["metrics"]
    assert {metrics[key]["verdict"] for key in ("ttft_ms.p50", "ttft_ms.p95")} == {"a"}
    assert metrics["ttft_ms.p50"]["headline"] is True and metrics["ttft_ms.p95"]["headline"] is False
    page = (tmp_path / "b" / "compare-a" / "compare.html").read_text()
    text = (tmp_path / "b" / "compare-a" / "compare.md").read_text()
    for lines in (output.splitlines(), text.splitlines()):
        told = {figure: next(line for line in lines if f"TTFT {figure}" in line) for figure in ("p50", "p95")}
        ends = [f"{100 * (end - 1):+.1f}%" for end in metrics["ttft_ms.p95"]["ratio"]["ci95"]]
        assert f"[{ends[0]}, {ends[1]}]" in told["p95"].replace("\\", ""), "figures and intervals are there"
        assert "A vllm" in told["p50"] and "A vllm" not in told["p95"]
    rows = {figure: page.partition(f">TTFT {figure}")[2].partition("</tr>")[0] for figure in ("p50", "p95")}
    assert "is faster" in rows["p50"] and "A vllm" in rows["p50"]
    assert "is faster" not in rows["p95"] and "A vllm" not in rows["p95"]
    for told in (output, page, text):
        assert "Only headline metrics name who is faster" in told


def test_other_metrics_say_why_their_interval_decides_nothing(tmp_path):
    known_run(tmp_path, "a", BASE, repeats=2, requests=20)
    known_run(tmp_path, "b", slower(0.5), repeats=2, requests=20)
    compare(tmp_path)
    assert written(tmp_path)["statistics"]["cells"][0]["metrics"]["ttft_ms.p99"]["reason"] == "few_requests"
    text = (tmp_path / "b" / "compare-a" / "compare.md").read_text()
    assert "too few requests" in next(line for line in text.splitlines() if "TTFT p99" in line)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ({}, {}, None),
        ({"between_blocks": "restart"}, {"between_blocks": "keep"}, "In run B the engine stayed up"),
        ({"between_blocks": "keep"}, {"between_blocks": "restart"}, "In run A the engine stayed up"),
        ({"between_blocks": "keep"}, {"between_blocks": "keep"}, "In both runs the engine stayed up"),
    ],
)
def test_runs_of_one_start_of_the_engine_are_told(tmp_path, a, b, told):
    for run_id, extra in (("a", a), ("b", b)):
        known_run(tmp_path, run_id, repeats=2, requests=10, manifest={"scenario": {"name": "known", **extra}})
    code, output = compare(tmp_path)
    text = (tmp_path / "b" / "compare-a" / "compare.md").read_text()
    assert code == 0
    for shown in (output, text):
        assert (told is not None) == ("stayed up from block to block" in shown)
        assert told is None or told in shown


def test_the_pages_stand_by_themselves(tmp_path):
    known_run(tmp_path, "a", BASE, cells=(Cell(512, 8, 2), Cell(512, 8, 4)), repeats=2, requests=40)
    known_run(
        tmp_path, "b", slower(0.2), cells=(Cell(512, 8, 2), Cell(512, 8, 4)), repeats=2, requests=40, version="<b>2"
    )
    assert compare(tmp_path, "a", "b", "--fail-if", P95, "--output", str(tmp_path / "out"))[0] in (3, 4)
    page = Page((tmp_path / "out" / "compare.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert not [reference for reference in page.references if not reference.startswith("#")]
    assert "ttft.p95 > +5%" in page.text and "<b>2" in page.text
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "<b>" not in text and "512 prompt tokens" in text
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert pictures and all((tmp_path / "out" / picture).is_file() for picture in pictures)


def test_cells_that_only_one_run_has_are_left_out_and_told(tmp_path):
    known_run(tmp_path, "a", BASE, cells=(Cell(256, 8, 2), Cell(512, 8, 2)), repeats=2, requests=30)
    known_run(tmp_path, "b", BASE, cells=(Cell(512, 8, 2), Cell(512, 8, 4)), repeats=2, requests=30)
    code, output = compare(tmp_path, "a", "b", "--fail-if", "ttft.p50 > +99%")
    assert "only A has" in output and "256 prompt tokens" in output and "only B has" in output
    found = written(tmp_path)
    assert found["cells"] == {
        "common": ["p0512-o0008-c002"],
        "only_a": ["p0256-o0008-c002"],
        "only_b": ["p0512-o0008-c004"],
    }
    assert [cell["id"] for cell in found["statistics"]["cells"]] == ["p0512-o0008-c002"]
    assert code == 0 and len(found["thresholds"]) == 1


def test_no_common_cell_is_refused(tmp_path):
    known_run(tmp_path, "a", BASE, cells=(Cell(256, 8, 2),), repeats=1, requests=10)
    known_run(tmp_path, "b", BASE, cells=(Cell(512, 8, 2),), repeats=1, requests=10)
    code, output = compare(tmp_path)
    assert code == 2 and "no cell in common" in output and "p0256-o0008-c002" in output


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"model": "other-7b"}, "model"),
        ({"context_length": 2048}, "context-length"),
        ({"prompts": {"mode": "text"}}, "prompts"),
        ({"api": "chat"}, "api"),
    ],
)
def test_what_makes_a_comparison_meaningless_is_refused_unless_accepted(tmp_path, facts, key):
    known_run(tmp_path, "a", repeats=1, requests=10)
    known_run(tmp_path, "b", repeats=1, requests=10, facts=facts)
    code, output = compare(tmp_path)
    assert code == 2 and f"--accept {key}" in output
    assert not (tmp_path / "b" / "compare-a").exists()
    code, output = compare(tmp_path, "a", "b", "--accept", key)
    assert code == 0 and "Accepted:" in output


@pytest.mark.parametrize(("digest", "code"), [("1" * 64, 0), ("2" * 64, 2), ("", 2)])
def test_a_tokenizer_is_the_same_by_its_digest_wherever_it_lies(tmp_path, digest, code):
    counted = {"mode": "text", "counted_by": "the given tokenizer"}
    for run, file, its in (("a", "/models/a/tokenizer.json", "1" * 64), ("b", "/elsewhere/tokenizer.json", digest)):
        facts = {"prompts": {**counted, "tokenizer": file, **({"tokenizer_sha256": its} if its else {})}}
        known_run(tmp_path, run, repeats=1, requests=10, facts=facts)
    found, output = compare(tmp_path)
    assert found == code and ("--accept prompts" in output) == (code == 2)


def test_when_an_engine_began_is_no_difference(tmp_path):
    for run, began in (("a", 1), ("b", 2)):
        entry = {"id": "m", "created": began, "permission": [{"id": f"modelperm-{began}"}]}
        known_run(tmp_path, run, repeats=1, requests=10, facts={"launch": {"models": {"data": [entry]}}})
    assert compare(tmp_path)[0] == 0
    assert not [row for row in written(tmp_path)["differences"] if "models" in row["what"]]


def test_a_shared_prefix_is_refused_and_an_unknown_acceptance_named(tmp_path):
    known_run(tmp_path, "a", repeats=1, requests=10)
    known_run(tmp_path, "b", repeats=1, requests=10, manifest={"scenario": {"shared_prefix_tokens": 128}})
    assert "--accept shared-prefix" in compare(tmp_path)[1]
    code, output = compare(tmp_path, "a", "b", "--accept", "everything")
    assert code == 2 and "context-length" in output


def test_other_machines_and_settings_are_told(tmp_path):
    known_run(tmp_path, "a", repeats=1, requests=10)
    known_run(
        tmp_path,
        "b",
        repeats=1,
        requests=10,
        version="2.0",
        facts={"launch": {"argv": ["serve", "--fast"], "packages": {"torch": "3"}}},
        manifest={
            "host": {"cpu": "Other CPU", "gpus": [{"name": "NVIDIA H200", "driver": "580"}]},
            "packages": {"bakeoff": "0.2.0"},
            "git": {"commit": "1" * 40},
            "status": "interrupted",
        },
    )
    code, output = compare(tmp_path)
    assert code == 0
    told = {row["what"]: (row["level"], row["b"]) for row in written(tmp_path)["differences"]}
    assert told["version of the engine"] == ("info", "2.0")
    assert told["host: cpu"] == ("warn", "Other CPU")
    assert told["GPUs"] == ("warn", "NVIDIA H200 (driver 580)")
    assert told["command line of the engine"] == ("warn", "serve --fast")
    assert told["engine's package: torch"] == ("warn", "3")
    assert told["load generator's package: bakeoff"] == ("warn", "0.2.0")
    assert told["commit of the load generator"] == ("warn", "1" * 40)
    assert told["how the run ended"] == ("warn", "interrupted")
    assert "host: cpu" in output


def test_equal_manifests_differ_in_nothing_but_what_nobody_calibrated(tmp_path):
    known_run(tmp_path, "a", repeats=1, requests=10)
    known_run(tmp_path, "b", repeats=1, requests=10)
    compare(tmp_path)
    assert [row["key"] for row in written(tmp_path)["differences"]] == ["floor"]


def test_seats_are_chosen(tmp_path):
    pair = {"vllm": BASE, "ksana": slower(0.5)}
    known_run(tmp_path, "a", truths=pair, repeats=3, requests=40)
    known_run(tmp_path, "b", truths=pair, repeats=3, requests=40)
    code, output = compare(tmp_path)
    assert code == 2 and "--engine NAME" in output
    assert compare(tmp_path, "a", "b", "--engine", "ksana", "--fail-if", "ttft.p50 > +20%")[0] == 0
    assert written(tmp_path)["b"]["label"] == "B ksana"
    assert compare(tmp_path, "a", "b", "--a", "vllm", "--b", "ksana", "--fail-if", "ttft.p50 > +20%")[0] == 3
    code, output = compare(tmp_path, "a", "b", "--engine", "sglang")
    assert code == 2 and "vllm, ksana" in output
    code, output = compare(tmp_path, "a", "a")
    assert code == 2 and "given twice" in output


def test_files_for_ci(tmp_path, monkeypatch):
    known_run(tmp_path, "a", BASE, repeats=3)
    known_run(tmp_path, "b", slower(0.3), repeats=3)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    files = ("--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "g.md"))
    assert compare(tmp_path, "a", "b", "--fail-if", P95, *files)[0] == 3
    assert summary.read_text() == "before\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert compare(tmp_path, "a", "b", "--fail-if", P95, "--github-summary")[0] == 3
    assert summary.read_text() == "before\n" + (tmp_path / "g.md").read_text()
    assert len(list(ET.parse(tmp_path / "j.xml").iter("failure"))) == 1
    code, output = compare(tmp_path, "a", "b", "--junit", str(tmp_path / "j.xml"))
    assert code == 2 and "no threshold" in output


def test_a_mistake_in_a_threshold_shows_its_place(tmp_path):
    code, output = compare(tmp_path, "a", "b", "--fail-if", "ttft.p95 > 5%")
    assert code == 2 and output.splitlines()[2].index("^") - 2 == "ttft.p95 > 5%".index("5%")


STEP = {
    "valid": True,
    "verdict": "kept",
    "oracle_write_p99_ms": 0.01,
    "requests": 100,
    "events_per_s": 100.0,
    "tpot_mean_error_percent": 0.1,
    **{key: {"p50": 0.1, "p99": 0.2, "max": 1.0} for key in ("itl_error_ms", "e2e_error_ms", "tpot_error_percent")},
}
CALIBRATION = {
    "measured_at": "2026-11-01T00:00:00",
    "hostname": "x",
    "host": {},
    "packages": {},
    "git": {},
    "server_core": 0,
    "client_core": 1,
    "realtime": False,
    "load_average": 0.1,
    "timing": {},
}


def calibrated(**ttft_error_ms) -> dict:
    """A calibration by streams, such as `s1=0.2`."""
    steps = [
        {**STEP, "streams": int(key[1:]), "ttft_error_ms": {"p50": 0.1, "p99": error, "max": 99.0}}
        for key, error in ttft_error_ms.items()
    ]
    return {"floor": {**CALIBRATION, "steps": steps}}


def test_a_difference_below_the_load_generators_error_is_none(tmp_path):
    """4 users: the step of 16 streams counts, that of the worse machine."""
    quick = Truth(ttft_ms=2.0, block_spread=0.0, spread=0.01)
    slow = dataclasses.replace(quick, ttft_ms=2.3)
    known_run(tmp_path, "a", quick, repeats=3, requests=40, manifest=calibrated(s1=0.01, s16=0.05, s64=9.0))
    known_run(tmp_path, "b", slow, repeats=3, requests=40, manifest=calibrated(s1=0.01, s16=0.5, s64=9.0))
    known_run(tmp_path, "c", slow, repeats=3, requests=40, manifest=calibrated(s1=0.01, s16=0.1, s64=9.0))
    limit = ("--fail-if", "ttft.p50 > +5%")
    code, output = compare(tmp_path, "a", "b", *limit)
    assert code == 4 and "load generator's own error" in output
    assert written(tmp_path)["statistics"]["cells"][0]["metrics"]["ttft_ms.p50"]["reason"] == "within_floor"
    assert compare(tmp_path, "a", "c", *limit)[0] == 3
