"""Is another's process on an engine's GPU told, and nothing where there is none?

    python -m benchmarks.truth.gpu_contention --blocks 200 [--gpu N]

Blocks of a stand-in engine that works on a GPU, in turns alone and with a second process beside it, seen as a race sees
its blocks: by the GPU exporter and a Prometheus that asks it each second. It takes a driver, no CUDA toolkit, and GPUs
that nothing else uses. A neighbour is there for five blocks, from some seconds before the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3
from scipy import stats

from benchmarks.simulated import command_line
from benchmarks.truth.gpu_exporter import Exporter
from loadgen.contention.reading import Finding
from loadgen.contention.rule import judge, words
from loadgen.machine import ROOT, unused_ports
from loadgen.monitoring.gpu import gpus_of
from loadgen.settings import Paths, load_settings
from stack.processes.binaries import find_prometheus

ENGINE = "load"
SETTLED_S = 4.0
"""So long after a process has come or gone the exporter knows, and Prometheus does."""
IN_TURN = 5
"""Blocks of one kind in a row, with the same neighbour."""
WORK = """
import ctypes, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    if code := getattr(cuda, name)(*arguments):
        sys.exit(f"{name}: CUDA error {code}")
device, context, held, count = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64(), 64 << 20
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
call("cuMemAlloc_v2", ctypes.byref(held), ctypes.c_size_t(4 * count))
print("ready", flush=True)
while True:
    call("cuMemsetD32_v2", held, 1, ctypes.c_size_t(count))
    call("cuCtxSynchronize")
    time.sleep(0.001)
"""
"""Writes 256 MiB of the GPU's memory, over and over."""


@contextlib.contextmanager
def on_gpu(gpu: int) -> Iterator[int]:
    """A process that works on a GPU, from when it does; its pid."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": str(gpu), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    with subprocess.Popen([sys.executable, "-c", WORK], env=environment, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise SystemExit("no process can work on that GPU")
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def prometheus(exporter: str, folder: Path) -> Iterator[str]:
    """A Prometheus that asks the exporter each second; its URL."""
    binary = find_prometheus(load_settings(ROOT), Paths(ROOT))
    if binary is None:
        raise SystemExit("there is no Prometheus: put it on PATH, or set PROMETHEUS_BIN")
    address = f"127.0.0.1:{unused_ports(1)[0]}"
    jobs = [{"job_name": "gpu", "static_configs": [{"targets": [exporter]}]}]
    config = folder / "prometheus.json"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}))
    command = [
        str(binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            urllib3.request("GET", f"http://{address}/-/ready", retries=urllib3.Retry(20, backoff_factor=0.1))
            yield f"http://{address}"
        finally:
            process.terminate()


def watched(url: str, gpu: int, seconds: float) -> tuple[Finding, ...]:
    """What is found in a block. Raises SystemExit where the engine is seen elsewhere."""
    began = time.time()
    time.sleep(seconds)
    gpus = gpus_of(ENGINE, url, began, time.time())
    if [one.gpu for one in gpus] != [str(gpu)]:
        raise SystemExit(f"the engine was seen on {[one.gpu for one in gpus]}, and is on {gpu}")
    return judge(seconds, None, None, gpus)


def main() -> None:
    """Run the blocks, alone and shared in turns, and tell how many were found."""
    parser = command_line(__doc__)
    parser.add_argument("--blocks", type=int, default=200, help="of each kind (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="a block (default %(default)s)")
    parser.add_argument("--gpu", type=int, default=0, help="its number, by nvidia-smi (default %(default)s)")
    options = parser.parse_args()
    marked = {"alone": 0, "shared": 0}
    with contextlib.ExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
        exporter = Exporter("--engine", f"{ENGINE}={around.enter_context(on_gpu(options.gpu))}")
        around.callback(exporter.stop)
        url = around.enter_context(prometheus(exporter.url.removeprefix("http://").removesuffix("/metrics"), folder))
        time.sleep(SETTLED_S)
        for number in range(0, options.blocks, IN_TURN):
            for kind in marked:
                with on_gpu(options.gpu) if kind == "shared" else contextlib.nullcontext():
                    time.sleep(SETTLED_S)
                    for block in range(number, min(number + IN_TURN, options.blocks)):
                        found = watched(url, options.gpu, options.seconds)
                        marked[kind] += any(kind == "alone" or finding.kind == "gpu_shared" for finding in found)
                        print(block, kind, *(str(words(finding)) for finding in found), sep="; ", flush=True)
    print("| GPU | blocks | marked | 95% interval of the share marked |\n| --- | --- | --- | --- |")
    for kind, count in marked.items():
        low, high = stats.binomtest(count, options.blocks).proportion_ci()
        print(f"| {kind} | {options.blocks} | {count} | {low:.1%} to {high:.1%} |")


if __name__ == "__main__":
    main()
