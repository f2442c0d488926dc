"""The GPU exporter as a whole: its command line, and real scrapes of a real process, here without a GPU."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporters.gpu import find_owners, main
from exporters.targets import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "x"], "expected NAME=URL"),
        (["--engine", "a b=1"], "expected NAME=URL"),
        (["--engine", "x=1", "--engine", "x=http://h"], "'x' twice"),
        (["--engine", "x=1", "--engine", "x=2"], "'x' twice"),
        (["--engine", "other=1"], "'other'"),
        (["--port", "70000"], "--port"),
        (["--peak-window", "0"], "--peak-window"),
        (["--host", "no-such-host.invalid"], "Cannot listen on no-such-host.invalid"),
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
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "the port is in use" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--engine NAME=PID|URL" in capsys.readouterr().out


def test_engines_come_from_the_environment_unless_given(monkeypatch):
    monkeypatch.setenv("BAKEOFF_ENGINES_JSON", json.dumps([{"name": "vllm", "base_url": "http://vllm:8101"}]))
    assert set(find_owners([], None)._trees) == {"vllm"}
    assert set(find_owners(["x=http://h"], None)._trees) == {"x"}
    assert find_owners(["x=17"], None)._pids == {"x": 17}
    monkeypatch.setenv("BAKEOFF_ENGINES_JSON", json.dumps([{"name": "other", "base_url": "http://vllm:8101"}]))
    with pytest.raises(UsageError, match="other"):
        find_owners([], None)


def has_driver() -> bool:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver")
def test_without_a_driver_it_serves_and_stays(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "exporters.gpu", "--port", "0", "--engine", "x=1"], stderr=subprocess.PIPE, text=True
    )
    try:
        log = ""
        while not ((match := re.search(r" event=listening .* port=(\d+)", log)) and "event=no_gpu" in log):
            line = process.stderr.readline()
            assert line, log
            log += line
        url = f"http://127.0.0.1:{match[1]}"
        for accept in ("text/plain", "application/openmetrics-text"):
            request = urllib.request.Request(f"{url}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read().decode()
            assert "\nbakeoff_gpu_devices 0.0\n" in text
            assert not re.search(r"^bakeoff_gpu_(?!devices)", text, re.M), "absent, never zero"
        assert "process_cpu_seconds" in {family.name for family in parse_openmetrics(text)}
        for path, expected in (("/healthz", "ok\n"), ("/", "GPU exporter")):
            with urllib.request.urlopen(url + path, timeout=120) as answer:
                assert expected in answer.read().decode()
        process.send_signal(number)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    log += rest
    assert "event=no_gpu" in log
    assert "Traceback" not in log


@pytest.mark.integration
def test_a_container_file_that_is_missing_is_said_once(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "missing or broken" in " ".join(capsys.readouterr().out.split())
    path = tmp_path / "none.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "exporters.gpu", "--port", "0", "--containers", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = ""
        while "event=container_map_unreadable" not in line:
            line = process.stderr.readline()
            assert line, "it ended and did not say"
        assert "level=warning" in line and str(path) in line
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "container_map_unreadable" not in rest
