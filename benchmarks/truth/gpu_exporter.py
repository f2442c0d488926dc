"""Check the GPU exporter on a real GPU, beside NVML, nvidia-smi and a PyTorch load of known sizes.

`python -m benchmarks.truth.gpu_exporter [--out FOLDER]` takes about 80 seconds and ends with 1 when a figure misses.
Needs torch, nvidia-ml-py, aiohttp, prometheus-client, psutil and a GPU that nothing else uses. It starts the exporter
and the load as processes of their own, and writes the scrapes and `result.json` to the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pynvml
from prometheus_client.parser import text_string_to_metric_families

from loadgen.machine import ROOT

MIB, GIB = 1 << 20, 1 << 30
CPU_LIMIT = 0.02
SCRAPE_LIMIT_S = 0.020
MEMORY_TOLERANCE = MIB
ENGINE = "load"

# Allocates and frees as told: each `alloc N`, `free` or `pulse N SECONDS` is answered when it is done.
LOAD = """
import sys, time, torch
held = []
torch.empty(1, device="cuda"); torch.cuda.synchronize()
def free():
    held.clear(); torch.cuda.synchronize(); torch.cuda.empty_cache()
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "free":
        free()
    elif word == "work":
        a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        end = time.monotonic() + float(rest[0])
        while time.monotonic() < end:
            for _ in range(20):
                a @ a
            torch.cuda.synchronize()
        del a
        free()
    else:
        held.append(torch.empty(int(rest[0]), dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        if word == "pulse":
            time.sleep(float(rest[1])); free()
    print("done", flush=True)
"""

Samples = dict[tuple[str, tuple[str, ...]], float]


class Load:
    """The PyTorch process."""

    def __init__(self) -> None:
        self.process = psutil.Popen(
            [sys.executable, "-c", LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def tell(self, text: str, *, wait: bool = True) -> None:
        """Send a command, and wait until it is done."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        if wait:
            self._answer()

    def _answer(self) -> None:
        if not self.process.stdout.readline():
            raise SystemExit("the load ended; does PyTorch see the GPU?")

    def stop(self) -> None:
        """End it by closing its input."""
        self.process.communicate(timeout=30)


class Exporter:
    """The exporter under test."""

    def __init__(self, *arguments: str) -> None:
        self.process = psutil.Popen(
            [sys.executable, "-m", "exporters.gpu", "--port", "0", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        while True:
            line = self.process.stderr.readline()
            self.log.append(line)
            if not line:
                raise SystemExit("the exporter ended:\n" + "".join(self.log))
            if match := re.search(r" event=listening .*port=(\d+)", line):
                self.url = f"http://127.0.0.1:{match[1]}/metrics"
                return

    def text(self) -> str:
        """One scrape."""
        with urllib.request.urlopen(self.url, timeout=10) as answer:  # noqa: S310
            return str(answer.read().decode())

    def scrape(self) -> Samples:
        """One scrape: (name without the prefix, own label's value if any) -> value, of GPU 0."""
        return parse(self.text())

    def cpu(self) -> float:
        """CPU seconds used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.communicate(timeout=30)[1].splitlines(keepends=True)
        return int(self.process.returncode)


def parse(text: str) -> Samples:
    """Samples of GPU 0 in the text format, as Prometheus' own client library reads it."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("bakeoff_gpu_") and sample.labels.get("gpu", "0") == "0":
                own = tuple(v for k, v in sorted(sample.labels.items()) if k not in ("gpu", "uuid", "name"))
                found[sample.name.removeprefix("bakeoff_gpu_"), own] = sample.value
    return found


def nvidia_smi(fields: str) -> list[str]:
    """What nvidia-smi says of GPU 0, plain numbers."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return [each.strip() for each in subprocess.check_output(command, text=True).strip().split(",")]


class Check:
    """Runs the steps and keeps what they found."""

    def __init__(self, out: Path) -> None:
        self.out, self.result, self.missed = out, {}, 0  # type: ignore[var-annotated]
        pynvml.nvmlInit()
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def expect(self, what: str, good: bool, **figures: Any) -> None:
        """Print and keep one finding."""
        self.missed += not good
        self.result[what] = {"ok": good, **figures}
        print("ok  " if good else "MISS", what, json.dumps(figures), flush=True)

    def nvml_used(self) -> int:
        """NVML's figure, read here and now."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self.handle, version=pynvml.nvmlMemory_v2).used)

    def memory(self, exporter: Exporter, load: Load, sizes: list[int]) -> None:
        """Steps of known size: the exporter's figure beside NVML's and nvidia-smi's at the same moment."""
        time.sleep(2)
        base = self.nvml_used()
        for step, size in enumerate([0, *sizes, 0]):
            load.tell("free")
            if size:
                load.tell(f"alloc {size}")
            time.sleep(2.5)  # a round of readings, and the owner of a new process
            text = exporter.text()
            own, smi = parse(text), nvidia_smi("memory.used,memory.reserved,memory.total,temperature.gpu,power.draw")
            nvml = self.nvml_used()
            used = own["memory_used_bytes", ()]
            process = own.get(("engine_memory_bytes", (ENGINE,)))
            self.expect(
                f"memory, step {step}: {size // MIB} MiB allocated",
                abs(used - nvml) <= MEMORY_TOLERANCE
                and abs(used / MIB - float(smi[0])) <= 1
                and abs(own["memory_reserved_bytes", ()] / MIB - float(smi[1])) <= 1
                and abs(own["memory_total_bytes", ()] / MIB - float(smi[2])) <= 1
                and abs((used - base) - size) <= 32 * MIB
                and process is not None
                and abs(process - used) <= 64 * MIB,
                exporter=used, nvml=nvml, smi_mib=smi[0], above_base=used - base, engine=process,
            )  # fmt: skip
            (self.out / f"scrape-{size // MIB}mib.txt").write_text(text, encoding="utf-8")

    def peaks(self, exporter: Exporter, load: Load) -> None:
        """A 200 ms allocation between two scrapes 2 s apart, for one scraper and for two."""
        exporter.scrape()
        time.sleep(2.2)
        base = exporter.scrape()["memory_used_bytes", ()]
        for number in range(5):
            time.sleep(0.3 + 0.17 * number)
            load.tell(f"pulse {GIB} 0.2")
            time.sleep(2 - 0.5 - 0.17 * number)
            own = exporter.scrape()
            peak, used = own["memory_peak_bytes", ()] - base, own["memory_used_bytes", ()] - base
            self.expect(f"peak of 200 ms, try {number + 1}", abs(peak - GIB) <= 32 * MIB and abs(used) <= 32 * MIB,
                        peak_above_base=peak, used_above_base=used)  # fmt: skip
            time.sleep(2.2)
            after = exporter.scrape()["memory_peak_bytes", ()] - base
            self.expect(f"peak forgotten after it, try {number + 1}", abs(after) <= 32 * MIB, peak_above_base=after)
        load.tell(f"pulse {GIB} 0.2")
        first, second = (exporter.scrape()["memory_peak_bytes", ()] - base for _ in range(2))
        self.expect("two scrapers see the same peak", min(first, second) >= GIB - 32 * MIB, first=first, second=second)

    def figures(self, exporter: Exporter, load: Load) -> None:
        """A GPU that works: utilisation, power, energy and clocks beside nvidia-smi's."""
        load.tell("work 8", wait=False)
        time.sleep(3)
        before, began = exporter.scrape(), time.monotonic()
        time.sleep(3)
        text = exporter.text()
        took = time.monotonic() - began
        own = parse(text)
        smi = nvidia_smi("utilization.gpu,utilization.memory,power.draw.average,clocks.sm,clocks.mem,temperature.gpu")
        load._answer()
        (self.out / "scrape-busy.txt").write_text(text, encoding="utf-8")
        watts = own["power_watts", ()]
        mean = (own["energy_joules_total", ()] - before["energy_joules_total", ()]) / took
        clock = own["clock_hertz", ("sm",)] / 1e6
        self.expect(
            "busy: utilisation", own["utilization_ratio", ()] >= 0.9, own=own["utilization_ratio", ()], smi=smi[0]
        )
        self.expect("busy: power", abs(watts / float(smi[2]) - 1) <= 0.15, own=watts, smi=smi[2])
        self.expect("busy: energy over time is power", abs(mean / watts - 1) <= 0.5, watts_from_energy=round(mean, 1))
        self.expect("busy: SM clock", abs(clock / float(smi[3]) - 1) <= 0.25, own=clock, smi=smi[3])
        self.expect("busy: memory clock", own["clock_hertz", ("memory",)] / 1e6 == float(smi[4]), smi=smi[4])
        self.expect("busy: temperature", abs(own["temperature_celsius", ("gpu",)] - float(smi[5])) <= 5, smi=smi[5])
        reasons = {key[1][0]: value for key, value in own.items() if key[0] == "throttle"}
        self.expect("busy: throttle reasons are series", len(reasons) >= 5, reasons=reasons)

    def cost(self, exporter: Exporter, seconds: int) -> None:
        """CPU at a scrape a second, and how long a scrape takes."""
        exporter.scrape()
        took, cpu, began = [], exporter.cpu(), time.monotonic()
        for tick in range(1, seconds + 1):
            time.sleep(max(0.0, began + tick - time.monotonic()))
            start = time.perf_counter()
            exporter.text()
            took.append(time.perf_counter() - start)
        share = (exporter.cpu() - cpu) / (time.monotonic() - began)
        self.expect("CPU at a scrape a second", share < CPU_LIMIT, share_of_a_core=round(share, 4))
        took.sort()
        self.expect("time of a scrape", took[-1] < SCRAPE_LIMIT_S, scrapes=len(took),
                    p50_ms=round(statistics.median(took) * 1e3, 2), max_ms=round(took[-1] * 1e3, 2))  # fmt: skip


def main() -> int:
    """Run all steps; 1 when a figure misses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or tempfile.mkdtemp()))
    parser.add_argument("--cost-seconds", type=int, default=30)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    check = Check(options.out)
    load = Load()
    exporter = Exporter("--engine", f"{ENGINE}={load.process.pid}")
    try:
        check.memory(exporter, load, [GIB, 8 * GIB])
        check.peaks(exporter, load)
        check.figures(exporter, load)
        check.cost(exporter, options.cost_seconds)
        load.stop()
        time.sleep(2.5)
        text = exporter.text()
        (options.out / "scrape-idle.txt").write_text(text, encoding="utf-8")
        gone = parse(text).get(("engine_memory_bytes", (ENGINE,)))
        check.expect("no series of an engine that ended", gone is None, engine=gone)
    finally:
        code = exporter.stop()
        if load.process.poll() is None:
            load.process.kill()
    check.expect("SIGTERM ends it with 0", code == 0, code=code)
    print("".join(exporter.log), end="")
    (options.out / "result.json").write_text(json.dumps(check.result, indent=1), encoding="utf-8")
    print(f"{check.missed} missed; {len(check.result)} checked; {options.out}")
    return 1 if check.missed else 0


if __name__ == "__main__":
    sys.exit(main())
