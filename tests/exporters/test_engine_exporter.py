"""The exporter as a whole: its command line, and real scrapes of a real process."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters.engine import main
from exporters.targets import Target, UsageError, parse_target
from tests.exporters.cgroup_tree import version2

MIB = 1 << 20
A = "a1" * 32


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
    with pytest.raises(UsageError) as caught:
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
        self.began = ""
        while not (match := re.search(r" event=listening .* port=(\d+)", self.began)):
            line = self.process.stderr.readline()
            assert line, self.began
            self.began += line
        self.url = f"http://127.0.0.1:{match[1]}"

    def get(self, path, accept="text/plain"):
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=120) as answer:
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

    def until(self, true, seconds=120):
        end = time.monotonic() + seconds
        while True:
            values, infos = self.samples()
            if true(values, infos):
                return values, infos
            assert time.monotonic() < end, (values, infos)
            time.sleep(0.05)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=120)
        return self.process.returncode, self.began + log


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
    values, infos = watch.until(
        lambda v, i: (
            "good" in i
            and v["bakeoff_engine_ready", "good", None] == 1
            and ("bakeoff_engine_memory_bytes", "good", "pss") in v
        )
    )
    assert infos == {"good": ("0.32.0", "gemma")}
    for name in ("reachable", "up", "ready"):
        assert values[f"bakeoff_engine_{name}", "good", None] == 1
        assert values[f"bakeoff_engine_{name}", "none", None] == 0
    assert values["bakeoff_engine_context_tokens", "good", None] == 4096
    assert ("bakeoff_engine_context_tokens", "none", None) not in values
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
    watch = exporter("--engine", f"x={fake.url}", "--interval", "0.1", "--timeout", "600")
    watch.until(lambda v, i: v["bakeoff_engine_up", "x", None] == 1)
    fake.control("hang")
    fake.control("asked")  # a probe is under way now, and stays so for 600 s
    took = []
    for _ in range(10):
        began = time.monotonic()
        watch.samples()
        took.append(time.monotonic() - began)
    assert max(took) < 60, "a scrape waited for the engine"
    assert watch.stop(signal.SIGINT)[0] == 0, "stopping does not wait for it either"


@pytest.mark.integration
def test_a_hanging_engine_is_down_counted_and_logged_once(fake_engine, exporter):
    fake = fake_engine()
    watch = exporter("--engine", f"x={fake.url}", "--interval", "0.1", "--timeout", "1.5")
    watch.until(lambda v, i: v["bakeoff_engine_ready", "x", None] == 1)
    fake.control("hang")
    errors = ("bakeoff_engine_scrape_errors_total", "x", None)
    before = watch.samples()[0][errors]  # a busy machine has outages of its own
    watch.until(lambda v, i: v[errors] >= before + 3 and v["bakeoff_engine_up", "x", None] == 0)
    watch.until(lambda v, i: v["bakeoff_engine_reachable", "x", None] == 1)  # it still accepts connections
    code, log = watch.stop()
    assert code == 0
    *_, outage = log.split("event=engine_up")
    assert outage.count("event=engine_down") == 1
    assert len(re.findall(r"event=probe_failed .*GET /health", outage)) == 1


@pytest.mark.integration
def test_an_engine_comes_up_in_steps(fake_engine, exporter):
    """A process that listens, then answers its health check, then lists a model, then is of another kind."""
    fake = fake_engine("loading")
    watch = exporter("--engine", f"x={fake.url}", "--interval", "0.1")

    def stage(v, i):
        return tuple(v[f"bakeoff_engine_{name}", "x", None] for name in ("reachable", "up", "ready"))

    _, infos = watch.until(lambda v, i: stage(v, i) == (1, 0, 0))
    assert infos == {}
    fake.control("flavour?empty")
    _, infos = watch.until(lambda v, i: stage(v, i) == (1, 1, 0) and "x" in i)
    assert infos == {"x": ("unknown", "unknown")}
    fake.control("flavour?llamacpp")
    values, infos = watch.until(lambda v, i: stage(v, i) == (1, 1, 1))
    assert infos == {"x": ("b11549-abc", "gemma")}
    assert values["bakeoff_engine_context_tokens", "x", None] == 512
    fake.control("flavour?loading")
    watch.until(lambda v, i: stage(v, i) == (1, 0, 0))
    fake.control("flavour?ksana")
    values, infos = watch.until(lambda v, i: stage(v, i) == (1, 1, 1))
    assert infos == {"x": ("unknown", "qwen")}
    assert ("bakeoff_engine_context_tokens", "x", None) not in values, "absent, never that of another engine"
    fake.kill()
    watch.until(lambda v, i: stage(v, i) == (0, 0, 0))


@pytest.mark.integration
def test_engines_in_containers(fake_engine, exporter, tmp_path):
    """Memory and CPU are the container's, by the file that names it; the process that listens is somebody else's."""
    fake = fake_engine()
    names, tree = tmp_path / "containers.json", tmp_path / "cgroup"
    folder = version2(tree, f"docker/{A}", charged=140 * MIB, unused=30 * MIB, cpu_us=1_500_000)
    watch = exporter(
        *("--engine", f"vllm={fake.url}", "--engine", f"ksana={fake.url}", "--interval", "0.1"),
        *("--containers", str(names), "--cgroups", str(tree)),
    )
    values, _ = watch.until(lambda v, i: v["bakeoff_engine_ready", "vllm", None] == 1)
    usage = ("bakeoff_engine_memory_bytes", "bakeoff_engine_cpu_seconds_total", "bakeoff_engine_processes")
    assert not [key for key in values if key[0] in usage], "not the process that answers, and no zero"

    names.write_text(json.dumps({A: "vllm", "b2" * 32: "ksana"}))
    memory, cpu = "bakeoff_engine_memory_bytes", "bakeoff_engine_cpu_seconds_total"
    values, _ = watch.until(lambda v, i: (memory, "vllm", "container") in v)
    found = {key[1:]: value for key, value in values.items() if key[0] in usage}
    assert found == {
        ("vllm", "container"): 140 * MIB,
        ("vllm", "working_set"): 110 * MIB,
        ("vllm", None): 1.5,
    }
    (folder / "cpu.stat").write_text("usage_usec 2500000\n")
    watch.until(lambda v, i: v[cpu, "vllm", None] == 2.5)
    shutil.rmtree(folder)
    watch.until(lambda v, i: not [key for key in v if key[0] in usage])
    code, log = watch.stop()
    assert code == 0
    assert log.count("event=container_map_unreadable") == 1


@pytest.mark.integration
def test_what_is_no_http_is_a_short_warning_once(fake_engine, exporter):
    watch = exporter("--engine", f"x={fake_engine().url}")
    port = int(watch.url.rpartition(":")[2])
    for request in 2 * [b"GET / HTTP/1.1\r\nbad\x00header: 1\r\n\r\n"] + [
        b"GET /" + b"x" * 20_000,
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ]:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall(request)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.")
    watch.samples()
    code, log = watch.stop()
    assert code == 0
    lines = [line for line in log.splitlines() if "event=bad_request" in line]
    assert lines and len(lines) == len({line.partition("reason=")[2] for line in lines})
    assert all("level=warning" in line and len(line) < 400 for line in lines)
    assert "level=error" not in log
    assert "Traceback" not in log
