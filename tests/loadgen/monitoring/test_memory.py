"""Engine memory from a Prometheus that answers, answers nonsense, hangs up, or is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.monitoring.memory import engine_memory
from loadgen.report import write_report
from loadgen.runs.folder import RunFolder
from tests.fake_prometheus import Answer, FakePrometheus
from tests.loadgen.report.html_check import check
from tests.loadgen.report.synthetic_run import START, SyntheticRun


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.stop()


@pytest.fixture
def made(tmp_path: Path) -> tuple[SyntheticRun, RunFolder]:
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=4).add_all()
    return run, run.write(tmp_path)


def known(run: SyntheticRun, gpus: list[dict[str, Any]] | None = None) -> Answer:
    memory = run.memory()

    def answer(query: dict[str, str]) -> tuple[int, bytes]:
        if "gpu_energy" in query["query"]:
            body = {"status": "success", "data": {"resultType": "matrix", "result": gpus or []}}
            return 200, json.dumps(body).encode()
        engine = query["query"].split('engine="')[1].split('"')[0]
        values = [[at, str(value)] for at, value in memory.get(engine, [])] + [[START + 9999, "NaN"]]
        result = [{"metric": {}, "values": values}] if engine in memory else []
        body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        return 200, json.dumps(body).encode()

    return answer


def test_memory_is_asked_for_once_and_outlives_prometheus(
    prometheus: FakePrometheus, made: tuple[SyntheticRun, RunFolder]
) -> None:
    run, folder = made
    prometheus.answer = known(run)
    paths = write_report(folder, prometheus_url=prometheus.url + "/")
    assert paths.data.memory.missing == []
    assert [series.engine for series in paths.data.memory.series] == ["llamacpp", "vllm"]
    query = next(query for query in prometheus.asked if "memory" in query["query"])
    assert query["path"] == "/api/v1/query_range"
    memory = "bakeoff_engine_memory_bytes"
    assert (
        query["query"]
        == f'max({memory}{{engine="llamacpp",kind=~"pss|working_set"}}) or max({memory}{{engine="llamacpp"}})'
    )
    assert float(query["start"]) == run.manifest.started_at
    assert float(query["end"]) == run.manifest.ended_at
    assert float(query["step"]) >= 1
    asked = len(prometheus.asked)
    first = paths.data.memory.series
    again = write_report(folder, prometheus_url="http://127.0.0.1:9")
    assert again.data.memory.series == first
    assert len(prometheus.asked) == asked
    document = json.loads(again.summary.read_text())
    peak = max(value for _, value in first[0].samples)
    assert document["engines"][0]["peak_memory_bytes"] == peak


def test_a_missing_engine_is_named_and_asked_for_again(
    prometheus: FakePrometheus, made: tuple[SyntheticRun, RunFolder]
) -> None:
    run, folder = made
    whole = known(run)
    prometheus.answer = lambda q: (
        whole(q) if "llamacpp" in q["query"] else (200, b'{"status":"success","data":{"result":[]}}')
    )
    memory = engine_memory(folder.path, run.manifest, prometheus.url)
    assert [series.engine for series in memory.series] == ["llamacpp"]
    assert "vllm" in memory.missing[0] and "no samples" in memory.missing[0]
    prometheus.answer = whole
    assert len(engine_memory(folder.path, run.manifest, prometheus.url).series) == 2


def test_memory_of_one_engine_with_several_settings_is_told_apart_by_their_blocks(
    prometheus: FakePrometheus, tmp_path: Path
) -> None:
    run = SyntheticRun(engines=["graphs", "eager"], prompts=(64,), concurrencies=(1,), requests=4, repeats=2).add_all()
    for facts in run.manifest.engines:
        facts.launch["seat"] = "vllm"
    start, end = run.manifest.span()
    values = [[start + second, "7"] for second in range(int(end - start) + 1)]
    body = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}
    prometheus.answer = lambda _: (200, json.dumps(body).encode())
    memory = engine_memory(tmp_path, run.manifest, prometheus.url)
    assert all('engine="vllm"' in query["query"] for query in prometheus.asked)
    found = {series.engine: {at for at, _ in series.samples} for series in memory.series}
    assert set(found) == {"graphs", "eager"} and not found["graphs"] & found["eager"]
    for block in run.manifest.blocks:
        assert block.ended_at is not None
        assert any(block.started_at <= at <= block.ended_at for at in found[block.engine])


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "not as a Prometheus"),
        (200, b"[]", "not as a Prometheus"),
        (200, b'{"status":"success","data":{"result":[{"values":[["x"]]}]}}', "not as a Prometheus"),
        (400, b'{"status":"error","error":"bad step"}', "bad step"),
    ],
)
def test_a_strange_answer_is_named(
    status: int, body: bytes, words: str, prometheus: FakePrometheus, made: tuple[SyntheticRun, RunFolder]
) -> None:
    run, folder = made
    prometheus.answer = lambda _: (status, body)
    memory = engine_memory(folder.path, run.manifest, prometheus.url)
    assert memory.series == [] and words in memory.missing[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("url", "words"),
    [(None, "without a Prometheus"), ("http://127.0.0.1:9", "does not answer"), ("nonsense", "nonsense")],
)
def test_the_report_comes_without_prometheus_and_says_why(
    url: str | None, words: str, made: tuple[SyntheticRun, RunFolder]
) -> None:
    _, folder = made
    (folder.path / "metrics.json").write_text("{torn")
    paths = write_report(folder, prometheus_url=url)
    page = check(paths.html.read_text(encoding="utf-8"))
    assert words in page.text
    assert words in paths.markdown.read_text().replace("\\", "")
    assert any(words in line for line in json.loads(paths.summary.read_text())["missing"])


def test_engine_names_are_quoted_in_the_query(prometheus: FakePrometheus, tmp_path: Path) -> None:
    run = SyntheticRun(engines=["a"], prompts=(64,), concurrencies=(1,), requests=3).add_all()
    run.manifest.engines[0].name = 'a"} or up{b="'  # none that a run may have
    engine_memory(tmp_path, run.manifest, prometheus.url)
    assert prometheus.asked[0]["query"].endswith(r'max(bakeoff_engine_memory_bytes{engine="a\"} or up{b=\""})')
