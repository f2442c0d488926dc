"""GPUs as they are watched and scraped, with an NVML that has every fault a real one has."""

import itertools
import re
import threading
from collections import Counter

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporters.gpu_monitor import LOOK_AGAIN_S, STALE_S, GpuMonitor
from exporters.gpu_series import metrics
from exporters.nvml import KINDS, Nvml
from exporters.patience import Patience
from exporters.web import Collected
from tests.exporters.fake_nvml import GIB, FakeGpu, FakeNvml

LOST, MISSING = pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_NOT_SUPPORTED


class Bench:
    """A monitor, its fake driver, and a clock that only we move."""

    def __init__(self, *gpus, owners=None, window_s=2.0, patience=None):
        self.nvml, self.now, self.cpu_cost = FakeNvml(*gpus), 100.0, 0.0
        self.cpu, self.samples = 0.0, 0
        owners = owners or {}
        self.monitor = GpuMonitor(
            Nvml(self.nvml),
            lambda pids: {pid: owners[pid] for pid in pids if pid in owners},
            window_s=window_s,
            patience=patience or Patience(None),
            clock=lambda: self.now,
            cpu_clock=self._cpu,
        )
        self.registry = CollectorRegistry()
        self.registry.register(Collected(lambda: metrics(*self.monitor.scrape())))

    def _cpu(self):
        self.cpu += self.cpu_cost
        return self.cpu

    def run(self, seconds):
        """Let the monitor do all that is due in this time."""
        end = self.now + seconds
        while True:
            pause = self.monitor.step()
            assert pause >= 0
            if self.now + pause > end:
                self.now = end
                return
            self.now += pause

    def scrape(self):
        """{(name, labels beside the GPU's name): value}."""
        found = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                own = {k: v for k, v in sample.labels.items() if k not in ("gpu", "uuid", "name")}
                key = (sample.name.removeprefix("bakeoff_gpu_"), sample.labels.get("gpu"), *own.values())
                assert key not in found
                found[key] = sample.value
        return found


def test_every_figure_in_base_units():
    bench = Bench(FakeGpu())
    bench.run(1.5)
    assert bench.scrape() == {
        ("devices", None): 1,
        ("up", "0"): 1,
        ("memory_total_bytes", "0"): 141 * GIB,
        ("memory_used_bytes", "0"): 2 * GIB,
        ("memory_reserved_bytes", "0"): GIB // 2,
        ("memory_peak_bytes", "0"): 2 * GIB,
        ("utilization_ratio", "0"): 0.97,
        ("memory_bandwidth_utilization_ratio", "0"): 0.41,
        ("power_watts", "0"): 612.345,
        ("power_limit_watts", "0"): 700,
        ("energy_joules_total", "0"): 9876.543,
        ("temperature_celsius", "0", "gpu"): 63,
        ("temperature_celsius", "0", "memory"): 71,
        ("clock_hertz", "0", "sm"): 1.98e9,
        ("clock_hertz", "0", "memory"): 3.201e9,
        **{
            ("throttle", "0", reason): value
            for reason, value in {
                "idle": 0, "application_clocks": 0, "power_cap": 1, "hardware_slowdown": 0, "sync_boost": 0,
                "software_thermal": 0, "hardware_thermal": 1, "power_brake": 0, "display_clocks": 0,
            }.items()
        },
        ("ecc_errors_total", "0", "corrected"): 7,
        ("ecc_errors_total", "0", "uncorrected"): 1,
        ("nvlink_bytes_total", "0", "transmit"): 10 * 1024,
        ("nvlink_bytes_total", "0", "receive"): 20 * 1024,
        ("pcie_bytes_per_second", "0", "transmit"): 1_500_000,
        ("pcie_bytes_per_second", "0", "receive"): 2_500_000,
    }  # fmt: skip


def test_the_labels_say_which_gpu():
    bench = Bench(FakeGpu(3))
    bench.run(1)
    text = generate_latest(bench.registry).decode()
    assert 'bakeoff_gpu_up{gpu="0",name="NVIDIA H200",uuid="GPU-3"} 1.0' in text


FIGURES = [*FakeGpu().figures, "nvmlDeviceGetFieldValues", "nvmlDeviceGetComputeRunningProcesses"]


@pytest.mark.parametrize("function", FIGURES)
def test_what_a_card_does_not_have_is_absent_no_error_and_asked_for_once(function):
    gpu = FakeGpu()
    gpu.processes = [(1, GIB)]
    bench = Bench(gpu, owners={1: "vllm"})
    bench.run(1.5)
    everything = set(bench.scrape())
    gpu.faults[function] = MISSING
    again = Bench(gpu, owners={1: "vllm"})
    again.run(5.5)
    left = set(again.scrape())
    assert left < everything, "the rest stays, and nothing new appears"
    assert ("up", "0") in left
    limit = {"nvmlDeviceGetClockInfo": 2, "nvmlDeviceGetTotalEccErrors": 2, "nvmlDeviceGetFieldValues": 5,
             "nvmlDeviceGetPcieThroughput": 2}.get(function, 1)  # fmt: skip
    assert 1 <= again.nvml.calls.count(function) <= limit


def test_a_field_that_the_card_does_not_have():
    gpu = FakeGpu()
    del gpu.fields[pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX]
    gpu.fields[pynvml.NVML_FI_DEV_MEMORY_TEMP] = (pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 0)
    bench = Bench(gpu)
    bench.run(1.5)
    found = bench.scrape()
    assert not [key for key in found if key[0] == "nvlink_bytes_total"], "half of a rate would mislead"
    assert [key for key in found if key[0] == "temperature_celsius"] == [("temperature_celsius", "0", "gpu")]


TX, RX = pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX
SENT, GOT = pynvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES
ALL = 2**32 - 1


@pytest.mark.parametrize(
    ("fields", "transmit", "receive"),
    [
        ({TX: 10, RX: 20}, 10 * 1024, 20 * 1024),
        ({(TX, 0): 1, (RX, 0): 2, (TX, 1): 4, (RX, 1): 8, (TX, 17): 16, (RX, 17): 32}, 21 * 1024, 42 * 1024),
        ({(TX, ALL): 0, (RX, ALL): 0, (TX, 3): 5, (RX, 3): 6}, 5 * 1024, 6 * 1024),
        ({(SENT, ALL): 7000, (RX, 0): 3, (GOT, ALL): 8000}, 7000, 8000),
        ({(TX, ALL): 0, (RX, ALL): 0, (SENT, 0): 70, (GOT, 0): 80, (SENT, 1): 1, (GOT, 2): 9}, 70, 80),
        ({(TX, ALL): 0, (RX, ALL): 0}, 0, 0),
        ({(TX, 0): 1, (RX, 1): 2}, None, None),
    ],
    ids=["all", "by link", "zero, but by link", "in bytes", "bytes by link", "idle", "never both"],
)
def test_nvlink_by_whichever_counter_answers(fields, transmit, receive):
    gpu = FakeGpu()
    del gpu.fields[TX], gpu.fields[RX]
    gpu.fields |= {field: (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, value) for field, value in fields.items()}
    bench = Bench(gpu, FakeGpu(1))
    bench.run(1.5)
    found = bench.scrape()
    assert found.get(("nvlink_bytes_total", "0", "transmit")) == transmit
    assert found.get(("nvlink_bytes_total", "0", "receive")) == receive
    assert found["nvlink_bytes_total", "1", "receive"] == 20 * 1024
    assert not [key for key in found if key[0] == "nvml_errors_total"]


@pytest.mark.parametrize("cards", [2, 4, 8])
def test_each_card_has_its_own_figures_and_its_share_of_each_engine(cards):
    """An engine with a process on each card, another that shares card 0, and a third of one process on the last two."""
    gpus = [FakeGpu(n, nvmlDeviceGetPowerUsage=100_000 + n, nvmlDeviceGetTotalEnergyConsumption=1000 * n)
            for n in range(cards)]  # fmt: skip
    for n, gpu in enumerate(gpus):
        gpu.fields |= {TX: (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 100 + n)}
        gpu.processes = [(1000 + n, (10 + n) * GIB)]
    gpus[0].processes += [(50, GIB)]
    for gpu in gpus[-2:]:
        gpu.processes += [(70, 3 * GIB)]
    owners = {**{1000 + n: "vllm" for n in range(cards)}, 50: "vllm-2", 70: "ksana"}
    bench = Bench(*gpus, owners=owners)
    bench.run(3)
    found = bench.scrape()
    for n in range(cards):
        assert found["power_watts", str(n)] == pytest.approx(100 + n / 1000)
        assert found["nvlink_bytes_total", str(n), "transmit"] == (100 + n) * 1024
        engines = {key[2]: value for key, value in found.items() if key[:2] == ("engine_memory_bytes", str(n))}
        assert engines == {"vllm": (10 + n) * GIB} | ({"vllm-2": GIB} if n == 0 else {}) | (
            {"ksana": 3 * GIB} if n >= cards - 2 else {}
        )
        assert found["engine_processes", str(n), "vllm"] == 1


def test_old_drivers():
    gpu = FakeGpu(nvmlDeviceGetCurrentClocksThrottleReasons=pynvml.nvmlClocksEventReasonGpuIdle)
    gpu.faults = {
        "nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        "nvmlDeviceGetCurrentClocksEventReasons": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    }
    bench = Bench(gpu)
    bench.run(1.5)
    found = bench.scrape()
    assert ("memory_reserved_bytes", "0") not in found
    assert found["memory_used_bytes", "0"] == 2 * GIB + GIB // 2
    assert found["throttle", "0", "idle"] == 1


def test_a_card_without_a_memory_figure_is_up():
    gpu = FakeGpu()
    gpu.faults = {"nvmlDeviceGetMemoryInfo": MISSING, "nvmlDeviceGetMemoryInfo_v2": MISSING}
    bench = Bench(gpu)
    bench.run(1.5)
    found = bench.scrape()
    assert found["up", "0"] == 1
    assert found["power_watts", "0"] == 612.345
    assert not [key for key in found if key[0].startswith("memory_") and key[0].endswith("_bytes")]


def test_memory_is_sampled_20_times_a_second_and_the_rest_once():
    bench = Bench(FakeGpu(), FakeGpu(1))
    bench.run(10)
    calls = Counter(bench.nvml.calls)
    assert 2 * 195 <= calls["nvmlDeviceGetMemoryInfo_v2"] <= 2 * 210
    assert 2 * 10 <= calls["nvmlDeviceGetPowerUsage"] <= 2 * 11
    assert calls["nvmlInit"] == 1
    assert calls["nvmlDeviceGetUUID"] == 2


def test_samples_fit_between_the_slow_readings():
    """One call a step, so that 20 ms of PCIe on each of many GPUs leave no gap in the samples."""
    bench = Bench(*(FakeGpu(number) for number in range(8)))
    sampled = []

    def slow(gpu, *_):
        bench.now += 0.02
        return 1

    def sample(gpu, version=None):
        if gpu is bench.nvml.gpus[0]:
            sampled.append(bench.now)
        return original(gpu, version)

    original = bench.nvml.nvmlDeviceGetMemoryInfo
    bench.nvml.nvmlDeviceGetPcieThroughput, bench.nvml.nvmlDeviceGetMemoryInfo = slow, sample
    bench.run(10)
    assert max(b - a for a, b in itertools.pairwise(sampled)) <= 0.1, "10 Hz at least"


def test_readings_get_rarer_where_they_cost_more():
    bench = Bench(FakeGpu())
    bench.cpu_cost = 0.002  # 14 pieces of 2 ms
    bench.run(28)
    assert bench.nvml.calls.count("nvmlDeviceGetPowerUsage") <= 28 / 2.8 + 1
    assert bench.nvml.calls.count("nvmlDeviceGetMemoryInfo_v2") >= 28 * 19


def test_processes_are_told_each_second_however_dear_other_figures_are():
    """Else a neighbour of some seconds would not be told of, and one that has left would be for long."""
    bench = Bench(FakeGpu(), owners={1: "other"})
    nvlink = bench.nvml.nvmlDeviceGetFieldValues

    def dear(*arguments):
        bench.cpu += 0.1
        return nvlink(*arguments)

    bench.nvml.nvmlDeviceGetFieldValues = dear
    bench.run(20)
    assert bench.nvml.calls.count("nvmlDeviceGetPowerUsage") <= 3
    for there in (True, False):
        bench.nvml.gpus[0].processes = [(1, GIB)] if there else []
        bench.run(1)
        assert (("engine_processes", "0", "other") in bench.scrape()) is there


def test_no_driver_then_a_driver_then_none_again():
    bench = Bench(FakeGpu())
    bench.nvml.open_fault = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    bench.run(100)
    assert bench.scrape() == {("devices", None): 0}
    assert 2 <= bench.nvml.calls.count("nvmlInit") <= 100 / LOOK_AGAIN_S + 1, "looks again, now and then"
    bench.nvml.open_fault = None
    bench.run(LOOK_AGAIN_S + 1)
    assert bench.scrape()["up", "0"] == 1

    bench.nvml.opened, bench.nvml.open_fault = False, pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    bench.run(1)
    found = bench.scrape()
    assert found["up", "0"] == 0
    bench.run(LOOK_AGAIN_S)
    found = bench.scrape()
    assert found["devices", None] == 0
    assert {key[0] for key in found} == {"devices", "up", "nvml_errors_total"}
    assert found["nvml_errors_total", "0", "driver_not_loaded"] >= 1

    bench.nvml.open_fault = None
    bench.run(LOOK_AGAIN_S + 1)
    found = bench.scrape()
    assert found["devices", None] == found["up", "0"] == 1
    assert found["memory_used_bytes", "0"] == 2 * GIB


def test_a_machine_without_a_gpu():
    bench = Bench()
    bench.run(60)
    assert bench.scrape() == {("devices", None): 0}
    bench.nvml.gpus.append(FakeGpu())
    bench.run(LOOK_AGAIN_S + 1)
    assert bench.scrape()["up", "0"] == 1


def test_a_gpu_that_falls_off_the_bus_is_a_metric_and_its_neighbour_goes_on(caplog):
    caplog.set_level("INFO")
    bench = Bench(FakeGpu(0), FakeGpu(1))
    bench.run(2)
    bench.nvml.gpus[0].faults["*"] = LOST
    bench.run(40)
    found = bench.scrape()
    assert found["devices", None] == 2
    assert {key for key in found if key[1] == "0"} == {("up", "0"), ("nvml_errors_total", "0", "gpu_is_lost")}
    assert found["up", "0"] == 0
    assert 1 <= found["nvml_errors_total", "0", "gpu_is_lost"] <= 41, "asked once a second, not 20 times"
    assert found["up", "1"] == 1
    assert found["memory_peak_bytes", "1"] == 2 * GIB
    text = generate_latest(bench.registry).decode()
    assert 'bakeoff_gpu_up{gpu="0",name="NVIDIA H200",uuid="GPU-0"} 0.0' in text, "who it was is still known"
    assert [record.message for record in caplog.records].count("gpu_down") == 1

    bench.nvml.gpus[0].faults.clear()
    bench.run(LOOK_AGAIN_S + 1)
    found = bench.scrape()
    assert found["up", "0"] == 1
    assert found["power_watts", "0"] == 612.345
    assert found["nvml_errors_total", "0", "gpu_is_lost"] >= 1, "a counter keeps its count"


def test_a_lost_gpu_that_the_driver_no_longer_counts():
    bench = Bench(FakeGpu(0), FakeGpu(1))
    bench.run(2)
    lost = bench.nvml.gpus[0]
    lost.faults["*"] = LOST
    bench.run(1)
    del bench.nvml.gpus[0]
    bench.run(LOOK_AGAIN_S + 1)
    text = generate_latest(bench.registry).decode()
    assert "bakeoff_gpu_devices 1.0" in text
    assert 'bakeoff_gpu_up{gpu="0",name="NVIDIA H200",uuid="GPU-0"} 0.0' in text
    assert 'bakeoff_gpu_up{gpu="0",name="NVIDIA H200",uuid="GPU-1"} 1.0' in text, "the neighbour has its index now"


def test_a_gpu_that_was_lost_before_we_came():
    gpu = FakeGpu()
    gpu.faults["nvmlDeviceGetHandleByIndex"] = LOST
    bench = Bench(gpu)
    bench.run(2)
    assert bench.scrape() == {
        ("devices", None): 1,
        ("up", "0"): 0,
        ("nvml_errors_total", "0", "gpu_is_lost"): 1,
    }
    gpu.faults.clear()
    bench.run(LOOK_AGAIN_S)
    assert bench.scrape()["up", "0"] == 1
    assert generate_latest(bench.registry).decode().count("bakeoff_gpu_up{") == 1, "the unknown one is known now"


def test_a_figure_that_fails_once_is_counted_and_the_rest_stays():
    gpu = FakeGpu()
    bench = Bench(gpu)
    bench.run(1.5)
    gpu.faults["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_TIMEOUT
    bench.run(1)
    found = bench.scrape()
    assert ("power_watts", "0") not in found
    assert found["up", "0"] == 1
    assert found["energy_joules_total", "0"] == 9876.543
    assert found["nvml_errors_total", "0", "timeout"] == 1
    gpu.faults.clear()
    bench.run(1)
    assert bench.scrape()["power_watts", "0"] == 612.345


def test_a_driver_that_hangs_makes_figures_absent_and_holds_no_scrape_up():
    gpu = FakeGpu()
    bench = Bench(gpu)
    bench.run(2)
    hang, hung = threading.Event(), threading.Event()

    def stuck(*_):
        hung.set()
        hang.wait()
        raise pynvml.NVMLError(LOST)

    bench.nvml.nvmlDeviceGetMemoryInfo = stuck
    bench.now += 1
    thread = threading.Thread(target=bench.monitor.step)
    thread.start()
    try:
        assert hung.wait(120)
        assert bench.scrape()["memory_used_bytes", "0"] == 2 * GIB, "a moment old"
        bench.now += STALE_S
        found = bench.scrape()
        assert found == {("devices", None): 1, ("up", "0"): 0}
    finally:
        hang.set()
        thread.join(120)


def test_memory_of_engines():
    gpu = FakeGpu()
    gpu.processes = [(1, 3 * GIB), (2, GIB), (3, 5 * GIB), (4, None), (5, 7)]
    bench = Bench(gpu, owners={1: "vllm", 2: "vllm", 3: "other", 4: "ksana"})
    bench.run(1.5)
    found = bench.scrape()
    assert {key[2]: value for key, value in found.items() if key[0] == "engine_memory_bytes"} == {
        "vllm": 4 * GIB,
        "other": 5 * GIB,
    }, "pid 5 is not looked up yet; what ksana has is not told, so it is absent"
    assert {key[2]: value for key, value in found.items() if key[0] == "engine_processes"} == {
        "vllm": 2,
        "other": 1,
        "ksana": 1,
    }
    gpu.processes = []
    bench.run(1)
    assert not [key for key in bench.scrape() if key[0].startswith("engine_")]


def test_a_peak_of_200_ms_between_two_scrapes():
    gpu = FakeGpu()
    bench = Bench(gpu)
    bench.run(3)
    bench.scrape()
    bench.run(0.83)
    gpu.used += 8 * GIB
    bench.run(0.2)
    gpu.used -= 8 * GIB
    bench.run(0.97)
    found = bench.scrape()
    assert found["memory_peak_bytes", "0"] == 10 * GIB
    assert found["memory_used_bytes", "0"] == 2 * GIB
    assert bench.scrape()["memory_peak_bytes", "0"] == 10 * GIB, "another scraper sees it too"
    bench.run(2.1)
    assert bench.scrape()["memory_peak_bytes", "0"] == 2 * GIB


def test_error_names_are_nvmls():
    assert KINDS[LOST] == "gpu_is_lost"
    assert all(re.fullmatch(r"[a-z0-9_]+", kind) for kind in KINDS.values())
