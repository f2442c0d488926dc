"""A real vLLM on this machine's CPU with a model that costs next to nothing: its own scheduler and front end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3

from benchmarks.small_model import write
from loadgen.calibration.pinned_process import log_tail
from loadgen.engines.vllm import api_server, translate
from loadgen.scenario.serving import Serving

START_LIMIT_S = 600
ENVIRONMENT = {
    # GiB; far more than the experiments' caches take with this model.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@contextlib.contextmanager
def cpu_vllm(python: Path, serving: Serving) -> Iterator[str]:
    """vLLM with cold caches, set up as `serving` says; gives its URL.

    Args:
        python: the Python of an environment that has vLLM for CPUs.
        serving: a scenario's settings.

    Raises:
        SystemExit: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-") as name:
        folder = Path(name)
        write(folder / "model")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = translate(serving.model_dump(exclude_none=True), gpu=False)
        argv = [str(python.absolute()), *api_server(str(folder / "model"), None, "127.0.0.1", port, settings)[1:]]
        argv += ["--load-format", "dummy", "--enforce-eager"]
        environment = {**os.environ, **ENVIRONMENT, "VLLM_CACHE_ROOT": str(folder), "HF_HOME": str(folder)}
        url, log = f"http://127.0.0.1:{port}", folder / "vllm.log"
        with log.open("wb") as said:
            # Not in the checkout, whose folders have names of packages.
            process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it is healthy. Raises SystemExit with the end of its log."""
    until = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if urllib3.request("GET", f"{url}/health", retries=False, timeout=5).status == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"vLLM did not start:\n{log_tail(log)}")
