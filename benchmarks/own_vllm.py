"""A real vLLM of our own, on a CPU or a GPU, with a small model of made-up weights: its own scheduler and front end."""

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

from benchmarks.small_model import THIN, WHOLE, write
from loadgen.calibration.pinned_process import log_tail
from loadgen.engines.vllm import api_server, translate
from loadgen.scenario.serving import Serving

START_LIMIT_S = 600
ENVIRONMENT = {
    # GiB; far more than the experiments' caches take with the thin model. Of no meaning on a GPU.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@contextlib.contextmanager
def own_vllm(python: Path, serving: Serving, *, gpu: bool = False) -> Iterator[str]:
    """vLLM with cold caches, set up as `serving` says; gives its URL.

    Args:
        python: the Python of an environment that has vLLM.
        serving: a scenario's settings.
        gpu: whether it runs on the first GPU of `CUDA_VISIBLE_DEVICES`, with its graphs and the larger of the models.

    Raises:
        SystemExit: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-") as name:
        folder = Path(name)
        write(folder / "model", WHOLE if gpu else THIN)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = translate(serving.model_dump(exclude_none=True), gpu=gpu)
        argv = [str(python.absolute()), *api_server(str(folder / "model"), None, "127.0.0.1", port, settings)[1:]]
        argv += ["--load-format", "dummy", *([] if gpu else ["--enforce-eager"])]
        kept = os.environ.get("VLLM_CACHE_ROOT", str(folder))  # what is compiled for a GPU is worth keeping
        environment = {**os.environ, **ENVIRONMENT, "VLLM_CACHE_ROOT": kept, "HF_HOME": str(folder)}
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
