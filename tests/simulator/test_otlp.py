import gzip
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.otlp import INDEX, METRICS, Deltas
from tests.simulator.client import chat, running
from tests.simulator.test_wire import shape

PUSHES = Path(__file__).resolve().parents[1] / "data" / "ksana-c451219-otlp-pushes.jsonl.gz"


def captured() -> list[dict[str, Any]]:
    with gzip.open(PUSHES, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def metrics(push: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        metric
        for resource in push["resourceMetrics"]
        for scope in resource.get("scopeMetrics", [])
        for metric in scope["metrics"]
    ]


def test_a_push_has_the_captured_shape() -> None:
    deltas = Deltas("i", "v", 5)
    deltas.push(6)
    for index in range(len(METRICS)):
        deltas.observe(index, 12.0)
    ours = deltas.push(7)
    theirs = {metric["name"]: metric for push in captured() for metric in metrics(push) if len(metric) > 1}
    assert [metric["name"] for metric in metrics(ours)] == [metric["name"] for metric in metrics(captured()[0])]
    assert shape(ours["resourceMetrics"][0]["resource"]) == shape(captured()[0]["resourceMetrics"][0]["resource"])
    assert shape(ours["resourceMetrics"][0]["scopeMetrics"][0]["scope"]) == shape(
        captured()[0]["resourceMetrics"][0]["scopeMetrics"][0]["scope"]
    )
    for metric in metrics(ours):
        assert shape(metric) == shape(theirs[metric["name"]]), metric["name"]


def test_the_first_push_carries_no_metrics_and_idle_ones_only_names() -> None:
    deltas = Deltas("i", "v", 0)
    assert metrics(deltas.push(1)) == []
    idle = deltas.push(2)
    theirs = next(push for push in captured() if all(len(metric) == 1 for metric in metrics(push)))
    assert shape(idle) == shape(theirs)


def test_a_delta_is_counted_once() -> None:
    deltas = Deltas("i", "v", 100)
    deltas.push(200)
    for value in (3.0, 20000.0, 5.0):
        deltas.observe(INDEX["time_to_first_token_us"], value)
    deltas.observe(INDEX["computed_output_token_num"], 4)
    deltas.observe(INDEX["computed_output_token_num"], 3)
    by_name = {metric["name"]: metric for metric in metrics(deltas.push(300))}
    point = by_name["time_to_first_token_us"]["histogram"]["dataPoints"][0]
    assert (point["count"], point["sum"], point["min"], point["max"]) == ("3", 20008.0, 3.0, 20000.0)
    assert point["bucketCounts"] == ["0", "2", *["0"] * 13, "1"]
    assert (point["startTimeUnixNano"], point["timeUnixNano"]) == ("200", "300")
    assert by_name["computed_output_token_num"]["sum"]["dataPoints"][0]["asInt"] == "7"
    assert all(len(metric) == 1 for metric in metrics(deltas.push(400)))


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.pushes.append((self.path, self.headers["Content-Type"], json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("timing", ["fixed", "batching"])
def test_the_simulator_pushes_all_it_did(timing: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.pushes = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/metrics"
    options = ["--metrics-export-url", url, "--metrics-export-interval-ms", "100", "--timing", timing]
    with running("--personality", "ksana", "--ttft-ms", "5", "--tpot-ms", "1", *options) as simulator:
        for _ in range(3):
            assert simulator.ask("POST", "/v1/chat/completions", chat()).end == "complete"
        deadline = time.monotonic() + 120
        while len(server.pushes) < 3 and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.05)
        assert simulator.stop()[0] == 0
    server.shutdown()
    server.server_close()
    pushes = server.pushes  # type: ignore[attr-defined]
    assert {(path, kind) for path, kind, _ in pushes} == {("/v1/metrics", "application/json")}
    assert metrics(pushes[0][2]) == []
    totals: dict[str, int] = {}
    for _, _, push in pushes:
        for metric in metrics(push):
            if "sum" in metric:
                value = int(metric["sum"]["dataPoints"][0]["asInt"])
            elif "histogram" in metric:
                value = int(metric["histogram"]["dataPoints"][0]["count"])
            else:
                continue
            totals[metric["name"]] = totals.get(metric["name"], 0) + value
    assert totals["forward_req_total_num"] == 3
    assert totals["computed_output_token_num"] == 18
    assert totals["computed_input_token_num"] == 30
    assert totals["time_to_first_token_us"] == totals["total_latency_us"] == 3
    assert totals["inter_token_interval_latency_us"] == 15
    if timing == "batching":
        assert totals["batch_scheduler_batch_size"] >= 18
