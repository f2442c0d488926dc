"""Every call to NVML with every answer that it has been seen to give: what one card's fault may touch, and what not."""

import math
import threading

import pynvml
import pytest

from exporters.gpu_limits import Possible
from exporters.gpu_monitor import NO_ANSWER
from exporters.gpu_series import FAMILIES
from exporters.nvml import FIGURES, PCIE
from exporters.patience import Late, Patience
from tests.exporters.fake_nvml import GIB, FakeGpu
from tests.exporters.test_gpu_monitor import Bench

FACTS = {"up", "nvml_errors_total"}
MEMORY = {"memory_total_bytes", "memory_used_bytes", "memory_reserved_bytes", "memory_peak_bytes"}
OF_CALL = {
    "nvmlDeviceGetMemoryInfo_v2": MEMORY,
    "nvmlDeviceGetUtilizationRates": {"utilization_ratio", "memory_bandwidth_utilization_ratio"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle"},
    "nvmlDeviceGetFieldValues": {"temperature_celsius", "nvlink_bytes"},
    "nvmlDeviceGetComputeRunningProcesses": {"engine_processes", "engine_memory_bytes"},
    "nvmlDeviceGetUUID": set(),
    "nvmlDeviceGetName": set(),
    "nvmlDeviceGetHandleByIndex": set(FAMILIES),
    **{figure.function: {figure.metric} for figure in (*FIGURES, *PCIE)},
}
"""Call -> metrics that it may cost."""
ERRORS = {
    "not_supported": pynvml.NVML_ERROR_NOT_SUPPORTED,
    "no_symbol": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    "no_permission": pynvml.NVML_ERROR_NO_PERMISSION,
    "lost": pynvml.NVML_ERROR_GPU_IS_LOST,
    "unknown": pynvml.NVML_ERROR_UNKNOWN,
    "new_code": 4711,
    "never": None,
    "mismatch": None,
    "undecodable": None,
}
GARBAGE = (-1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)


def base(name):
    return name.removesuffix("_total")


def plain(found, gpu):
    """Figures of one GPU, without what counts errors."""
    return {key: value for key, value in found.items() if key[1] == gpu and key[0] not in FACTS}


class Hangs(BaseException):
    """A call that never returns, without the wait for it."""


class Impatient(Patience):
    """Patience that knows at once which call hangs."""

    def __init__(self):
        super().__init__(None)
        self.released = False

    def ask(self, owner, what, call, limit_s=None):
        key = (owner, what)
        if key in self._late and not self.released:
            raise Late
        self._late.pop(key, None)
        try:
            return call()
        except Hangs:
            self._late[key] = None
            raise Late from None


def two_cards(**options):
    cards = FakeGpu(0), FakeGpu(1)
    for pid, card in enumerate(cards, 1):
        card.processes = [(pid, GIB)]
    return Bench(*cards, owners={1: "vllm", 2: "vllm"}, **options)


def healthy():
    bench = two_cards()
    bench.run(2)
    return bench.scrape()


@pytest.fixture(scope="module")
def whole():
    return healthy()


def break_call(bench, function, answer):
    """Let a call on card 0 answer so, from the first one on."""
    gpu = bench.nvml.gpus[0]
    if ERRORS[answer] is not None:
        gpu.faults[function] = ERRORS[answer]
        if function.endswith("_v2") and answer in ("not_supported", "no_symbol"):
            gpu.faults[function.removesuffix("_v2")] = ERRORS[answer]
        return

    ask = bench.nvml._ask

    def broken(name, asked):
        if name == function and asked is gpu:
            if answer == "never":
                raise Hangs
            if answer == "mismatch":
                raise pynvml.NVMLLibraryMismatchError("newer than the driver")
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")
        return ask(name, asked)

    bench.nvml._ask = broken


@pytest.mark.parametrize("answer", ERRORS)
@pytest.mark.parametrize("function", OF_CALL)
def test_what_a_call_that_fails_may_touch(function, answer, whole):
    bench = two_cards(patience=Impatient())
    break_call(bench, function, answer)
    bench.run(2)
    found = bench.scrape()
    assert plain(found, "1") == plain(whole, "1"), "the other card has nothing to do with it"
    assert found["up", "1"] == 1 and not [key for key in found if key[:2] == ("nvml_errors_total", "1")]
    lost = function == "nvmlDeviceGetHandleByIndex" or (
        answer == "lost" and function in ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID")
    )
    if lost and not plain(found, "0"):
        assert found["up", "0"] == 0
    else:
        assert found["up", "0"] == 1
        gone = {base(key[0]) for key in plain(whole, "0").keys() - plain(found, "0").keys()}
        assert gone <= OF_CALL[function]
        kept = {key: value for key, value in plain(whole, "0").items() if base(key[0]) not in OF_CALL[function]}
        assert kept.items() <= plain(found, "0").items()
    kinds = {key[2] for key in found if key[:2] == ("nvml_errors_total", "0")}
    expected = {
        "not_supported": set(), "no_symbol": set(), "mismatch": set(), "no_permission": {"no_permission"},
        "lost": {"gpu_is_lost"}, "unknown": {"unknown"}, "new_code": {"error_4711"}, "never": {NO_ANSWER},
        "undecodable": {"impossible"},
    }[answer]  # fmt: skip
    assert kinds == expected


def spoil(gpu, function, value):
    """Let a call on a card answer with a number that cannot be."""
    if function == "nvmlDeviceGetMemoryInfo_v2":
        gpu.used = value
    elif function == "nvmlDeviceGetComputeRunningProcesses":
        gpu.processes = [(value, value), (1, value)]
    elif function == "nvmlDeviceGetFieldValues":
        gpu.fields = dict.fromkeys(gpu.fields, (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, value))
    elif isinstance(gpu.figures[function], dict):
        gpu.figures[function] = dict.fromkeys(gpu.figures[function], value)
    elif function == "nvmlDeviceGetUtilizationRates":
        gpu.figures[function].gpu = value
    else:
        gpu.figures[function] = value


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("function", [name for name in OF_CALL if not name.endswith(("UUID", "Name", "Index"))])
def test_nothing_impossible_is_shown(function, value, whole):
    bench = two_cards()
    bench.run(1.5)
    spoil(bench.nvml.gpus[0], function, value)
    bench.run(3)
    found = bench.scrape()
    assert plain(found, "1") == plain(whole, "1")
    assert found["up", "0"] == 1
    for key, shown in plain(found, "0").items():
        possible = 0 <= shown <= whole.get(key, 0) * 1.5 + 1
        within_range = base(key[0]) in ("energy_joules", "nvlink_bytes") and value in (2**31 - 1, 2**32 - 1)
        assert possible or within_range, (key, shown)
    kept = {key: shown for key, shown in plain(whole, "0").items() if base(key[0]) not in OF_CALL[function]}
    assert kept.items() <= plain(found, "0").items(), "nothing readable is hidden"
    if function != "nvmlDeviceGetTotalEnergyConsumption":
        assert found["nvml_errors_total", "0", "impossible"] >= 1


def test_what_is_readable_beside_an_impossible_figure():
    gpu = FakeGpu()
    gpu.used = 2**64 - 1
    gpu.figures["nvmlDeviceGetUtilizationRates"].gpu = 808
    gpu.processes = [(1, 2**64 - 1), (2, GIB), (2**31, GIB)]
    bench = Bench(gpu, owners={1: "ksana", 2: "vllm", 2**31: "vllm"})
    bench.run(2)
    found = bench.scrape()
    assert found["memory_total_bytes", "0"] == 141 * GIB and found["memory_reserved_bytes", "0"] == GIB // 2
    assert ("memory_peak_bytes", "0") not in found and ("utilization_ratio", "0") not in found
    assert found["memory_bandwidth_utilization_ratio", "0"] == 0.41
    assert found["engine_processes", "0", "ksana"] == 1 and ("engine_memory_bytes", "0", "ksana") not in found
    assert found["engine_processes", "0", "vllm"] == 1 and found["engine_memory_bytes", "0", "vllm"] == GIB


def test_a_glitch_is_not_kept_in_the_peak():
    bench = Bench(FakeGpu())
    bench.run(1)
    bench.nvml.gpus[0].used = 2**63
    bench.run(0.1)
    bench.nvml.gpus[0].used = 3 * GIB
    bench.run(0.1)
    assert bench.scrape()["memory_peak_bytes", "0"] == 3 * GIB


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([100, 350, 600], [True, True, True]),
        ([100, 1e9, 600, 850], [True, False, True, True]),
        ([100, 0, 600], [True, False, True]),
        ([1e6, 10, 260, 510], [True, False, True, True]),
        ([100, math.nan, 600], [True, False, True]),
        ([100, 1e9, 1e9 + 250, 1e9 + 500], [True, False, True, True]),
        ([100, 1e9, 0, 600], [True, False, False, True]),
    ],
)
def test_energy_that_jumps_is_believed_when_it_stays(values, shown):
    possible = Possible()
    assert [possible(("energy_joules", ""), value, float(second)) for second, value in enumerate(values)] == shown


def test_two_cards_of_one_uuid_and_cards_without_any():
    bench = two_cards()
    bench.nvml.gpus[1].uuid = "GPU-0"
    bench.run(2)
    assert {key[1] for key in bench.scrape() if key[0] == "power_watts"} == {"0", "1"}
    bench = two_cards()
    for gpu in bench.nvml.gpus:
        gpu.faults["nvmlDeviceGetUUID"] = pynvml.NVML_ERROR_NO_PERMISSION
    bench.run(2)
    assert {key[1] for key in bench.scrape() if key[0] == "power_watts"} == {"0", "1"}


def test_a_number_of_gpus_that_cannot_be(caplog):
    bench = Bench(FakeGpu())
    bench.nvml.nvmlDeviceGetCount = lambda: 2**32 - 1
    bench.run(1)
    assert bench.scrape() == {("devices", None): 0}
    assert "impossible" in str([record.fields for record in caplog.records if hasattr(record, "fields")])


def test_a_card_that_answers_nothing_is_down_and_holds_no_other_up():
    patience = Impatient()
    bench = two_cards(patience=patience)
    bench.run(2)
    ask = bench.nvml._ask

    def hang(name, gpu):
        if gpu is bench.nvml.gpus[0] and not patience.released:
            raise Hangs
        return ask(name, gpu)

    bench.nvml._ask = hang
    bench.run(8)
    found = bench.scrape()
    assert found["up", "0"] == 0 and not plain(found, "0")
    assert found["up", "1"] == 1 and ("power_watts", "1") in found
    assert bench.nvml.calls.count("nvmlInit") == 1, "NVML is not closed around a call that is in it"
    patience.released = True
    bench.run(3)
    assert bench.scrape()["up", "0"] == 1


def test_patience():
    patience, released, begun, calls = Patience(60), threading.Event(), threading.Event(), []
    assert patience.ask("a", 1, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        patience.ask("a", 1, lambda: 1 / 0)
    with pytest.raises(Late):
        patience.ask("a", 1, lambda: calls.append(1) or begun.set() or released.wait(), limit_s=0.1)
    assert begun.wait(60)
    with pytest.raises(Late):
        patience.ask("a", 1, lambda: calls.append(2))
    assert patience.ask("b", 1, lambda: 6) == 6
    assert not patience.all_returned and calls == [1]
    released.set()
    for _ in range(6000):
        if patience.all_returned:
            break
        threading.Event().wait(0.01)
    assert patience.ask("a", 1, lambda: 7) == 7
