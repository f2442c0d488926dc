"""The page from a real Prometheus that scrapes a target of known figures, and is killed in between."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadgen.boards.model import Query
from loadgen.boards.page import build_page
from loadgen.machine import unused_ports
from loadgen.monitoring.prometheus import Prometheus
from tests.loadgen.boards.boards import board, panel
from tests.loadgen.boards.test_page import Reader, figures
from tests.prometheus.conftest import prometheus_binary  # noqa: F401 (a fixture)

pytestmark = pytest.mark.integration


class Target:
    """Serves a gauge of both engines, and while `telling` a second one."""

    def __init__(self) -> None:
        self.telling = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = 'level{engine="vllm"} 0.25\nlevel{engine="ksana"} 0.75\n'
                if outer.telling:
                    text += 'now_and_then{engine="vllm"} 7\n'
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Server:
    """A Prometheus of its own that can be killed and started again on its data."""

    def __init__(self, binary, folder, target_port) -> None:
        (self.port,) = unused_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
            f"scrape_configs: [{{job_name: x, static_configs: [{{targets: ['127.0.0.1:{target_port}']}}]}}]\n"
        )
        self.command = [
            str(binary), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        self.log = (folder / "log").open("w")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait("/-/ready", lambda text: True)

    def wait(self, path, enough) -> None:
        """Until an address answers what is wanted."""
        until = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                    if enough(answer.read().decode()):
                        return
            except OSError:
                pass
            assert time.monotonic() < until, f"{path} never answered as it should"
            time.sleep(0.1)

    def wait_for(self, query, least) -> None:
        """Until a query's value is at least so much."""

        def enough(text):
            result = json.loads(text)["data"]["result"]
            return bool(result) and float(result[0]["value"][1]) >= least

        self.wait(f"/api/v1/query?query={query}", enough)

    def stop(self, how=signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(120)


@pytest.fixture
def target_():
    made = Target()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def server(prometheus_binary, target_, tmp_path):  # noqa: F811
    made = Server(prometheus_binary, tmp_path, target_.port)
    yield made
    made.stop(signal.SIGKILL)
    made.log.close()


def test_what_was_recorded_and_what_was_not(server, target_, tmp_path):
    begin = time.time()
    server.wait_for("count_over_time(level%5B1m%5D)", 6)
    target_.telling = False
    server.wait_for("count_over_time(level%5B1m%5D)", 12)
    server.stop(signal.SIGKILL)
    killed = time.time()
    time.sleep(4)  # longer than five scrapes
    started = time.time()
    server.start()
    back = time.time()
    target_.telling = True
    server.wait_for(f"count_over_time(level%5B1m%5D)-count_over_time(level%5B1m%5D%20@%20{killed:.3f})", 0)
    server.wait_for("count_over_time(now_and_then%5B3s%5D)", 4)
    end = time.time()

    shown = board(
        panel("Level", 'level{engine=~"$engine"}'),
        panel("Now and then", "now_and_then"),
        panel("Highest", Query("max(level)", instant=True), kind="stat"),
        panel("Broken", "level{"),
    )
    page = build_page([shown], Prometheus(server.url), begin, end, title="live", manifest=None)
    assert (page.panels, page.filled, page.stopped) == (4, 3, False)
    (level, now_and_then), _ = figures(page.html)
    text = Reader(page.html).text
    assert "recorded nothing" in text and "parse error" in text and "750 ms" in text

    def times(trace):
        """When a trace has values, seconds since the Unix epoch."""
        first = datetime.datetime.fromisoformat(trace["x0"]).replace(tzinfo=datetime.UTC).timestamp()
        return [first + i * trace["dx"] / 1000 for i, value in enumerate(trace["y"]) if value is not None]

    assert [trace["name"] for trace in level["data"]] == ["ksana", "vllm"]
    assert {value for value in level["data"][1]["y"] if value is not None} == {250.0}
    for trace in level["data"]:
        shown = times(trace)
        assert any(at < killed for at in shown) and any(at > back for at in shown)
        assert not [at for at in shown if killed + 0.6 < at < started]
    shown = times(now_and_then["data"][0])
    silent = [at for at in times(level["data"][0]) if at not in shown and at < killed]
    assert silent, "a series that was told no more has a gap while others go on"
