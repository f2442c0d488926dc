"""A real Prometheus with our configuration, scraping engines' real pages while their counters rise.

The oracle is the pages' own text: every mean and ratio of counters that all rise by the same share is the ratio of the
counters themselves.
"""

import gzip
import http.server
import json
import re
import subprocess
import threading
import time
from collections import Counter

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest

from loadgen.distributed.client_metrics import ClientMetrics
from loadgen.endpoints.seats import Seat
from loadgen.machine import unused_ports
from stack.scrape_config import prometheus_files, write_prometheus_files
from tests.loadgen.records import MS, record
from tests.prometheus.conftest import CHECKOUT
from tests.prometheus.test_source_metrics import DATA, ksana_series

pytestmark = pytest.mark.integration

LIMIT_S = 300
SAMPLE = re.compile(r"^(([a-zA-Z_:][\w:]*)(?:\{.*\})?) (\S+)$")
CLIENT_TTFT_S = {"vllm": 1.25, "vllm-cpu": 0.0625, "llamacpp": 0.5, "ksana": 0.25}


class RisingPage:
    """A page of metrics whose counters rise by a tenth of themselves with each scrape."""

    def __init__(self, text, **gauges):
        self._lines, self._gauges, self.scrapes = text.splitlines(), gauges, 0
        self._counters = set()
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            parts = {"counter": ("",), "histogram": ("_sum", "_count", "_bucket")}.get(kind, ())
            self._counters |= {name + part for part in parts}

    def __call__(self):
        self.scrapes += 1
        return "".join(self._line(line) + "\n" for line in self._lines).encode()

    def _line(self, line):
        sample = SAMPLE.match(line)
        if sample is None:
            return line
        labelled, name, value = sample.groups()
        if name in self._counters:
            return f"{labelled} {float(value) * (1 + self.scrapes / 10)!r}"
        return f"{labelled} {self._gauges.get(name.partition(':')[2], value)}"

    def value(self, name, *labels):
        """The sum of a metric's samples that have these labels, as they are in the text."""
        found = [
            float(match[3])
            for line in self._lines
            if (match := SAMPLE.match(line)) and match[2] == name and all(label in match[1] for label in labels)
        ]
        assert found, f"no {name}"
        return sum(found)


def ksana_page():
    """KsanaLLM's pushes added up, as the exporter is to show them."""
    totals = Counter()
    with gzip.open(DATA / "ksana-c451219-otlp-pushes.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            for resource in json.loads(line)["resourceMetrics"]:
                for metric in (m for s in resource.get("scopeMetrics", ()) for m in s["metrics"]):
                    scale = 1e6 if metric["name"].endswith("_us") else 1
                    for point in metric.get("sum", {}).get("dataPoints", ()):
                        (name,) = ksana_series(metric["name"], True)
                        totals[name] += int(point["asInt"]) / scale
                    for point in metric.get("histogram", {}).get("dataPoints", ()):
                        total, count, *_ = ksana_series(metric["name"], False)
                        totals[total] += point["sum"] / scale
                        totals[count] += int(point["count"])
    text = "".join(f'# TYPE {name} counter\n{name}{{engine="ksana"}} {value!r}\n' for name, value in totals.items())
    return RisingPage(text)


class ClientPage:
    """Our own metrics: two more requests to each engine with each scrape."""

    def __init__(self):
        self._registry, self._metrics = CollectorRegistry(auto_describe=False), ClientMetrics()
        self._registry.register(self._metrics)

    def __call__(self):
        for engine, ttft in CLIENT_TTFT_S.items():
            first = round(ttft * 1e9)
            for _ in range(2):
                self._metrics.observe(record(0, (first, first + MS), engine=engine, output_tokens=2), "s")
        return generate_latest(self._registry)


@pytest.fixture
def serve():
    """Serve pages, each at a port of its own; returns the address."""
    servers = []

    def start(page):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = page()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def query(prometheus_binary, serve, pages, tmp_path):
    """Ask a Prometheus that scrapes the pages."""
    (port,) = unused_ports(1)
    files = prometheus_files(
        CHECKOUT,
        [
            Seat(name=name, kind=kind, base_url=f"http://{serve(pages[name])}")
            for name, kind in (("vllm", "vllm"), ("vllm-cpu", "vllm"), ("llamacpp", "llamacpp"))
        ],
        client=serve(pages["client"]),
        engine_exporter=serve(pages["ksana"]),
        prometheus=f"127.0.0.1:{port}",
    )
    write_prometheus_files(tmp_path, files)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [
                str(prometheus_binary),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    session = requests.Session()
    session.trust_env = False

    def ask(text):
        try:
            answer = session.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": text}, timeout=60).json()
        except requests.ConnectionError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return {}
        assert answer["status"] == "success", answer
        return {
            (row["metric"].get("__name__"), row["metric"].get("engine")): float(row["value"][1])
            for row in answer["data"]["result"]
        }

    yield ask
    process.terminate()
    process.wait(120)


@pytest.fixture
def pages():
    def fixture(name):
        return (DATA / f"{name}.metrics.txt").read_text(encoding="utf-8")

    return {
        "vllm": RisingPage(fixture("vllm-0.24.0-gpu"), num_requests_running=48, num_requests_waiting=16),
        "vllm-cpu": RisingPage(fixture("vllm-0.32.0-cpu"), kv_cache_usage_perc=0.25),
        "llamacpp": RisingPage(fixture("llamacpp-b11549"), requests_processing=3, requests_deferred=2),
        "ksana": ksana_page(),
        "client": ClientPage(),
    }


def expected_means(pages):
    """All means and ratios that the pages hold, by (record, engine); what is not here is to be absent."""
    found = {}
    for name in ("vllm", "vllm-cpu"):
        page = pages[name]

        def mean(metric, page=page):
            return page.value(f"vllm:{metric}_sum") / page.value(f"vllm:{metric}_count")

        gaps = page.value("vllm:request_generation_tokens_sum") - page.value("vllm:request_generation_tokens_count")
        found |= {
            ("engine:ttft_seconds:mean", name): mean("time_to_first_token_seconds"),
            ("engine:tpot_seconds:mean", name): page.value("vllm:request_decode_time_seconds_sum") / gaps,
            ("engine:queue_time_seconds:mean", name): mean("request_queue_time_seconds"),
            ("engine:step_tokens:mean", name): mean("iteration_tokens_total"),
        }
    # The first served without a prefix cache, so that its ratio is absent; the others had no hit, which is a zero.
    found["engine:prefix_cache_hits:ratio", "vllm-cpu"] = 0
    found |= {("engine:requests_running:mean", "vllm"): 48, ("engine:requests_waiting:mean", "vllm"): 16}
    found |= {("engine:requests_running:mean", "vllm-cpu"): 0, ("engine:requests_waiting:mean", "vllm-cpu"): 0}
    found |= {("engine:kv_cache_used:ratio", "vllm"): 0, ("engine:kv_cache_used:ratio", "vllm-cpu"): 0.25}
    llamacpp = pages["llamacpp"].value
    prompt, predicted = llamacpp("llamacpp:prompt_tokens_total"), llamacpp("llamacpp:tokens_predicted_total")
    found |= {
        ("engine:tpot_seconds:mean", "llamacpp"): llamacpp("llamacpp:tokens_predicted_seconds_total") / predicted,
        ("engine:requests_waiting:mean", "llamacpp"): 2,
        ("engine:requests_running:mean", "llamacpp"): 3,
        ("engine:step_tokens:mean", "llamacpp"): (prompt + predicted) / llamacpp("llamacpp:n_decode_total"),
        ("engine:prefix_cache_hits:ratio", "llamacpp"): 0,
    }
    # Of the pushes, by hand: 382 requests ended, 322 have a time to first token; sums are in microseconds.
    ttft = 51_940_884 / 322 / 1e6
    found |= {
        ("engine:ttft_seconds:mean", "ksana"): ttft,
        ("engine:tpot_seconds:mean", "ksana"): (428_731_943 / 1e6 - 382 * ttft) / (44_628 - 382),
        ("engine:queue_time_seconds:mean", "ksana"): 39_953_175 / 398 / 1e6,
        ("engine:requests_waiting:mean", "ksana"): 283 / 8426,
        ("engine:requests_running:mean", "ksana"): 46_348 / 8426,
        ("engine:step_tokens:mean", "ksana"): 779_179 / 8341,
        ("engine:prefix_cache_hits:ratio", "ksana"): (733_627 + 46_332 - 398 - 779_561) / 733_627,
    }
    for engine, seconds in CLIENT_TTFT_S.items():
        found["client:ttft_seconds:mean", engine] = seconds
        if ("engine:ttft_seconds:mean", engine) in found:
            residual = seconds - found["engine:ttft_seconds:mean", engine]
            found["engine:ttft_residual_seconds:mean", engine] = residual
    return found


EVERY = ("vllm", "vllm-cpu", "ksana", "llamacpp")
RATES = {
    "engine:prompt_tokens:rate": EVERY,
    "engine:generated_tokens:rate": EVERY,
    "engine:preemptions:rate": ("vllm", "vllm-cpu"),
    "engine:requests_succeeded:rate": ("vllm", "vllm-cpu", "ksana"),
    "engine:requests_failed:rate": ("vllm", "vllm-cpu"),
}


def test_each_engine_has_the_figures_that_it_tells_and_no_others(query, pages):
    means = expected_means(pages)
    wanted = set(means) | {(rate, engine) for rate, engines in RATES.items() for engine in engines}
    deadline = time.monotonic() + LIMIT_S
    while (found := query('{__name__=~"engine:.+|client:ttft_seconds:mean"}')).keys() != wanted:
        assert found.keys() <= wanted, f"recorded though no engine tells it: {sorted(found.keys() - wanted)}"
        assert time.monotonic() < deadline, f"not recorded: {sorted(wanted - found.keys())}"
        time.sleep(1)
    assert {key: found[key] for key in means} == pytest.approx(means, rel=1e-6, abs=1e-12)

    # Rates depend on the moment; what one is to another does not, once both were worked out for the same moment.
    deadline = time.monotonic() + LIMIT_S
    for engine, prompt, output in (
        ("vllm", pages["vllm"].value("vllm:prompt_tokens_total"), pages["vllm"].value("vllm:generation_tokens_total")),
        ("ksana", 733_627, 46_332),
        ("llamacpp", 17, 32),
    ):
        one, other = (f'engine:{kind}_tokens:rate{{engine="{engine}"}}' for kind in ("prompt", "generated"))
        while not any(
            value == pytest.approx(prompt / output) for value in query(f"{one} / ignoring (__name__) {other}").values()
        ):
            assert time.monotonic() < deadline, (engine, query(one), query(other))
            time.sleep(1)
    assert found["engine:requests_succeeded:rate", "vllm"] > 0
    assert found["engine:requests_failed:rate", "vllm"] == found["engine:preemptions:rate", "vllm"] == 0
    assert query('ALERTS{alertstate="firing"}') == {}
