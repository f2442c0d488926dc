"""The exporter as a whole: its command line, and pushes to and scrapes of a real process."""

import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from google.protobuf.json_format import Parse
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from exporters.ksana import main
from exporters.otlp_http import MAX_BODY
from tests.exporters.ksana_pushes import by_name, captured, delta_sum, number, parsed, push

JSON, PROTOBUF = "application/json", "application/x-protobuf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port"),
        (["--port", "x"], "--port"),
        (["--host", "no-such-host.invalid", "--port", "0"], "Cannot listen on no-such-host.invalid"),
        (["--bogus"], "--bogus"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    captured_output = capsys.readouterr()
    assert captured_output.err.count("\n") == 1
    assert message in captured_output.err


def test_the_port_is_a_variable(capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("BAKEOFF_KSANA_EXPORTER_PORT", str(taken.getsockname()[1]))
        assert main([]) == 2
    assert "the port is in use" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "9103" in capsys.readouterr().out


class Exporter:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exporters.ksana", "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        line = self.process.stderr.readline()
        match = re.search(r" event=listening .* port=(\d+)", line)
        assert match, line
        self.port = int(match[1])

    def ask(self, method, path, body=None, **headers):
        """(status, content type, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers.get_content_type(), answer.read()
        finally:
            connection.close()

    def push(self, body, path="/v1/metrics", kind=JSON, **headers):
        return self.ask("POST", path, body, Content_Type=kind, **headers)

    def samples(self):
        return parsed(self.ask("GET", "/metrics")[2].decode())

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=120)
        return self.process.returncode, log


@pytest.fixture
def exporter():
    one = Exporter()
    yield one
    if one.process.poll() is None:
        one.process.kill()
    one.process.communicate()


@pytest.mark.integration
def test_every_encoding_has_the_known_totals(exporter):
    began = time.time()
    for body in captured():
        binary = Parse(body, ExportMetricsServiceRequest()).SerializeToString()
        assert exporter.push(body) == (200, JSON, b"{}")
        assert exporter.push(gzip.compress(body), "/packed/v1/metrics", Content_Encoding="gzip")[0] == 200
        assert exporter.push(binary, "/binary/v1/metrics", PROTOBUF) == (200, PROTOBUF, b"")
        assert exporter.push(gzip.compress(binary), "/both/v1/metrics", PROTOBUF, Content_Encoding="gzip")[0] == 200
    samples = exporter.samples()
    for engine in ("ksana", "packed", "binary", "both"):
        mine = by_name({key: value for key, value in samples.items() if ("engine", engine) in key})
        assert mine["ksana_forward_req_total_num_total"] == 398
        assert mine["ksana_computed_output_token_num_total"] == 46_332
        assert mine["ksana_computed_input_token_num_total"] == 733_627
        assert mine["ksana_time_to_first_token_seconds_count"] == 322
        assert mine["ksana_time_to_first_token_seconds_sum"] == 51.940884
        assert mine["ksana_total_latency_seconds_count"] == 382
        assert samples["bakeoff_ksana_pushes_total", ("engine", engine)] == 78
        pushed = samples["bakeoff_ksana_last_push_timestamp_seconds", ("engine", engine)]
        assert began - 1 < pushed < time.time() + 1
    code, log = exporter.stop()
    assert code == 0
    assert "event=first_push engine=packed" in log and "event=stopping" in log
    assert "Traceback" not in log


@pytest.mark.integration
def test_garbage_gets_an_answer_with_the_reason_and_the_series_stay(exporter):
    assert "bakeoff_ksana_last_push_timestamp_seconds" not in str(exporter.samples()), "absent before the first push"
    exporter.push(push(delta_sum("x", number(5, 1, 2))))
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert len(bomb) < MAX_BODY
    memory = psutil.Process(exporter.process.pid).memory_info().rss
    cases = [
        (exporter.push(b"nonsense"), 400, "JSON", "malformed"),
        (exporter.push(b"\xff\xff", kind=PROTOBUF), 400, "protobuf", "malformed"),
        (exporter.push(bomb, Content_Encoding="gzip"), 413, "unpacked body has more than", "too_large"),
        (exporter.push(b"plain", Content_Encoding="gzip"), 400, "not gzip", "gzip"),
        (exporter.push(b"{}", Content_Encoding="br"), 415, "content encoding", "content_encoding"),
        (exporter.push(b"{}", kind="text/plain"), 415, "content type", "content_type"),
        (exporter.push(b"{}", "/no%20name/v1/metrics"), 404, "letters, digits", "engine"),
        (exporter.push(b" " * (MAX_BODY + 1)), 413, "the body has more than", "too_large"),
    ]
    refused = {}
    for (status, kind, body), expected, reason, counted in cases:
        assert status == expected
        text = Status.FromString(body).message if kind == PROTOBUF else json.loads(body)["message"]
        assert reason in text
        refused[counted] = refused.get(counted, 0) + 1
    assert psutil.Process(exporter.process.pid).memory_info().rss - memory < 32 << 20, "a bomb was unpacked"
    samples = exporter.samples()
    assert by_name(samples) == {"ksana_x_total": 5}
    for reason, count in refused.items():
        assert samples["bakeoff_ksana_refused_pushes_total", ("reason", reason)] == count
    assert exporter.push(push(delta_sum("x", number(2, 2, 3))))[0] == 200
    assert by_name(exporter.samples()) == {"ksana_x_total": 7}
    assert "Traceback" not in exporter.stop(signal.SIGINT)[1]


@pytest.mark.integration
def test_a_push_that_is_taken_in_part_says_so_in_its_own_encoding(exporter):
    body = push(delta_sum("x", number(5, 1, 2), number(6, 1, 2)))
    told = json.loads(exporter.push(body)[2])["partialSuccess"]
    assert told == {"rejectedDataPoints": "1", "errorMessage": "duplicate: 1"}
    binary = Parse(body, ExportMetricsServiceRequest()).SerializeToString()
    answer = ExportMetricsServiceResponse.FromString(exporter.push(binary, kind=PROTOBUF)[2])
    assert answer.partial_success.rejected_data_points == 2


@pytest.mark.integration
def test_a_body_that_is_cut_off_and_one_too_many_engines(exporter):
    with socket.create_connection(("127.0.0.1", exporter.port)) as line:
        line.sendall(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 100\r\n\r\n{")  # fmt: skip
    statuses = [exporter.push(b"{}", f"/e{number}/v1/metrics")[0] for number in range(18)]
    assert statuses == [200] * 16 + [404] * 2
    assert exporter.ask("GET", "/healthz")[2] == b"ok\n"
    assert b"<li>e15</li>" in exporter.ask("GET", "/")[2]
    assert "Traceback" not in exporter.stop()[1]
