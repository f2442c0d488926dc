"""The exporter as a whole: its command line, and real scrapes of a real process."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters.engine import Target, main, parse_target
from loadgen.errors import UserError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("vllm=http://127.0.0.1:8101", Target("vllm", "http://127.0.0.1:8101", "127.0.0.1", 8101)),
        ("a.b-c_1=http://localhost:80/v1/", Target("a.b-c_1", "http://localhost:80", "localhost", 80)),
        ("x=https://host/api/v1", Target("x", "https://host/api", "host", 443)),
        ("x=http://[::1]:9/", Target("x", "http://[::1]:9", "::1", 9)),
    ],
)
def test_targets(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "vllm",
            "=http://h",
            "a b=http://h",
            "x=",
            "x=127.0.0.1:80",
            "x=ftp://h",
            "x=http://",
            "x=http://h:99999",
        ),
        *("x=http://h:port", "x=http://user:secret@h", "x=http://h?a=1", "x=http://[::1", "é=http://h"),
    ],
)
def test_wrong_targets_are_explained_in_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No engine to watch"),
        (["--engine", "x"], "expected NAME=URL"),
        (["--engine", "x=http://h", "--engine", "x=http://g"], "'x' twice"),
        (["--engine", "x=http://h", "--port", "70000"], "--port"),
        (["--engine", "x=http://h", "--interval", "0"], "--interval"),
        (["--engine", "x=http://h", "--interval", "nan"], "--interval"),
        (["--engine", "x=http://h", "--host", "no-such-host.invalid"], "Cannot listen on no-such-host.invalid"),
        (["--bogus"], "--bogus"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_port_in_use_is_one_line_and_exit_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--engine", "x=http://h", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"127.0.0.1:{port}: the port is in use" in error


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--engine NAME=URL" in capsys.readouterr().out


class Exporter:
    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exporters.engine", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True
        )
        line = self.process.stderr.readline()
        match = re.search(r" event=listening .* port=(\d+)", line)
        assert match, line
        self.url = f"http://127.0.0.1:{match[1]}"

    def get(self, path, accept="text/plain"):
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode(), answer.headers["Content-Type"]

    def samples(self):
        """{(sample name, engine, kind): value} and the labels of every info, as Prometheus' own parser reads them."""
        values, infos = {}, {}
        for family in parse_text(self.get("/metrics")[0]):
            for sample in family.samples:
                if sample.name == "bakeoff_engine_info":
                    infos[sample.labels["engine"]] = (sample.labels["version"], sample.labels["model"])
                values[sample.name, sample.labels.get("engine"), sample.labels.get("kind")] = sample.value
        return values, infos

    def until(self, true, seconds=30):
        end = time.monotonic() + seconds
        while True:
            values, infos = self.samples()
            if true(values, infos):
                return values, infos
            assert time.monotonic() < end, (values, infos)
            time.sleep(0.05)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


@pytest.fixture
def exporter():
    started = []

    def start(*arguments):
        started.append(Exporter(*arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="PSS is Linux's")
def test_the_life_of_two_engines_as_scraped(fake_engine, exporter, free_port):
    good = fake_engine()
    watch = exporter(
        "--engine", f"good={good.url}/v1", "--engine", f"none=http://127.0.0.1:{free_port}", "--interval", "0.2"
    )
    values, infos = watch.until(lambda v, i: "good" in i and ("bakeoff_engine_memory_bytes", "good", "pss") in v)
    assert infos == {"good": ("0.32.0", "gemma")}
    assert values["bakeoff_engine_up", "good", None] == 1
    assert values["bakeoff_engine_up", "none", None] == 0
    assert values["bakeoff_engine_processes", "good", None] == 1
    assert values["bakeoff_engine_scrape_errors_total", "none", None] == 0, "being down is no error"
    absent = ["bakeoff_engine_memory_bytes", "bakeoff_engine_processes", "bakeoff_engine_cpu_seconds_total"]
    assert not [key for key in values if key[0] in absent and key[1] == "none"], "absent, never zero"

    before = values["bakeoff_engine_memory_bytes", "good", "rss"]
    child = good.control("fork?mib=64&cpu=0.2")["pid"]
    memory = ("bakeoff_engine_memory_bytes", "good", "rss")
    cpu = ("bakeoff_engine_cpu_seconds_total", "good", None)
    grown, _ = watch.until(
        lambda v, i: (
            v["bakeoff_engine_processes", "good", None] == 2
            and v[memory] > before + 60 * MIB
            and v[cpu] > values[cpu] + 0.18
        )
    )
    os.kill(child, signal.SIGKILL)
    shrunk, _ = watch.until(lambda v, i: v["bakeoff_engine_processes", "good", None] == 1)
    assert shrunk[cpu] >= grown[cpu]

    good.kill()
    gone, infos = watch.until(lambda v, i: v["bakeoff_engine_up", "good", None] == 0 and memory not in v)
    assert infos == {}
    assert gone[cpu] >= shrunk[cpu]
    fake_engine(port=str(good.port))
    back, _ = watch.until(lambda v, i: v["bakeoff_engine_up", "good", None] == 1 and memory in v)
    assert back[cpu] > gone[cpu]

    families = {family.name for family in parse_openmetrics(watch.get("/metrics", "application/openmetrics-text")[0])}
    assert {"bakeoff_engine", "bakeoff_engine_up", "bakeoff_engine_cpu_seconds"} <= families
    page, kind = watch.get("/")
    assert kind.startswith("text/html") and good.url in page
    assert watch.get("/healthz")[0] == "ok\n"
    code, log = watch.stop()
    assert code == 0
    assert "event=engine_down engine=good" in log
    assert "Traceback" not in log


@pytest.mark.integration
def test_a_scrape_never_waits_for_an_engine_that_hangs(fake_engine, exporter):
    fake = fake_engine()
    watch = exporter("--engine", f"x={fake.url}", "--interval", "0.1", "--timeout", "20")
    watch.until(lambda v, i: v["bakeoff_engine_up", "x", None] == 1)
    fake.control("hang")
    time.sleep(0.3)  # a probe is under way now, and stays so for 20 s
    took = []
    for _ in range(10):
        began = time.monotonic()
        watch.samples()
        took.append(time.monotonic() - began)
    assert max(took) < 5, "a scrape waited for the engine"
    assert watch.stop(signal.SIGINT)[0] == 0, "stopping does not wait for it either"


@pytest.mark.integration
def test_a_hanging_engine_is_down_counted_and_logged_once(fake_engine, exporter):
    fake = fake_engine()
    watch = exporter("--engine", f"x={fake.url}", "--interval", "0.1", "--timeout", "0.2")
    watch.until(lambda v, i: v["bakeoff_engine_up", "x", None] == 1)
    fake.control("hang")
    values, _ = watch.until(lambda v, i: v["bakeoff_engine_scrape_errors_total", "x", None] >= 3)
    assert values["bakeoff_engine_up", "x", None] == 0
    code, log = watch.stop()
    assert code == 0
    assert log.count("event=probe_failed") == 1
