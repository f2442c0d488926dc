"""NVML, NVIDIA's management library: what each GPU says of itself, in base units. The only file that talks to it.

Calls, units and field numbers are those of NVIDIA's NVML API Reference Guide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pynvml

Handle = Any
"""NVML's own handle of a GPU; good until the library is opened anew."""
Readings = dict[tuple[str, str], float]
"""(metric name after `bakeoff_gpu_`, label value or "") -> value in that metric's unit."""

KINDS: dict[int, str] = {
    code: name.removeprefix("NVML_ERROR_").lower()
    for name, code in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and isinstance(code, int)
}
UNSUPPORTED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
THROTTLE_REASONS = {
    "idle": pynvml.nvmlClocksEventReasonGpuIdle,
    "application_clocks": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    "power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "hardware_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksEventReasonSyncBoost,
    "software_thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hardware_thermal": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "power_brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "display_clocks": pynvml.nvmlClocksEventReasonDisplayClockSetting,
}
REASON_BITS = 16
"""No reason has a higher bit, and not all are set at once."""
MOST_GPUS = 256
ALL_LINKS, MOST_LINKS = 0xFFFFFFFF, 18
KIB, MHZ = 1024, 1_000_000
NVLINK = (
    # Payload in KiB: what `nvidia-smi nvlink -gt d` reads, from Ampere on. Then bytes: of NVLink 5.
    (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, KIB),
    (pynvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, 1),
)
"""Fields of what was sent and received, and bytes in their unit. `nvmlDeviceGetNvLinkUtilizationCounter` is not
supported on Hopper any more."""
NO_SUCH_LINK = ("not_supported", "invalid_argument")
IMPOSSIBLE = "impossible"
"""What NVML has no name for: it answered what cannot be."""


class Figure(NamedTuple):
    """A reading that is one call's answer, times `times` over `over` in the metric's unit."""

    metric: str
    label: str
    function: str
    arguments: tuple[int, ...] = ()
    times: int = 1
    over: int = 1

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.metric}_{self.label}".rstrip("_")


FIGURES = (
    Figure("power_watts", "", "nvmlDeviceGetPowerUsage", over=1000),
    Figure("power_limit_watts", "", "nvmlDeviceGetEnforcedPowerLimit", over=1000),
    Figure("energy_joules", "", "nvmlDeviceGetTotalEnergyConsumption", over=1000),
    Figure("temperature_celsius", "gpu", "nvmlDeviceGetTemperature", (pynvml.NVML_TEMPERATURE_GPU,)),
    *(
        Figure("clock_hertz", label, "nvmlDeviceGetClockInfo", (clock,), times=MHZ)
        for label, clock in (("sm", pynvml.NVML_CLOCK_SM), ("memory", pynvml.NVML_CLOCK_MEM))
    ),
    *(
        Figure("ecc_errors", label, "nvmlDeviceGetTotalEccErrors", (kind, pynvml.NVML_VOLATILE_ECC))
        for label, kind in (
            ("corrected", pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ("uncorrected", pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        )
    ),
)
PCIE = tuple(
    # A rate of 20 ms, in KB/s: NVML's byte counters of PCIe have 32 bits, which a busy link fills in 0.1 s.
    Figure("pcie_bytes_per_second", label, "nvmlDeviceGetPcieThroughput", (counter,), times=1000)
    for label, counter in (("transmit", pynvml.NVML_PCIE_UTIL_TX_BYTES), ("receive", pynvml.NVML_PCIE_UTIL_RX_BYTES))
)


class NvmlError(Exception):
    """NVML refused or could not be reached; `kind` is its error's name, for example `gpu_is_lost`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class NotSupported(NvmlError):
    """This card or this driver has no such figure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one GPU, bytes; None where it is not told."""

    total: int | None
    used: int | None
    """What processes hold; without `reserved`, unless the driver is too old to tell that."""
    reserved: int | None
    """What driver and firmware keep for themselves."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU."""

    pid: int
    used: int | None
    """Bytes; None where the driver does not tell."""


class Nvml:
    """One opened NVML.

    Args:
        api: pynvml, or what stands in for it.

    Every method raises NvmlError, and NotSupported for figures that the card does not have.
    """

    def __init__(self, api: Any = pynvml) -> None:
        self._api = api
        self.readers: dict[str, Callable[[Handle], Readings]] = {
            "utilization": self._utilization,
            **{figure.name: functools.partial(self._figure, figure) for figure in FIGURES},
            "memory_temperature": self._memory_temperature,
            "throttle": self._throttle,
            "nvlink": self._nvlink,
            **{figure.name: functools.partial(self._figure, figure) for figure in PCIE},
        }
        """What is read now and then, one quick call or two each; those of PCIe wait 20 ms."""

    def open(self) -> int:
        """Open the library; returns how many GPUs the driver knows."""
        self._call("nvmlInit")
        count = int(self._call("nvmlDeviceGetCount"))
        if not 0 <= count <= MOST_GPUS:
            raise NvmlError(IMPOSSIBLE)
        return count

    def close(self) -> None:
        """Close the library, opened or not."""
        with contextlib.suppress(NvmlError):
            self._call("nvmlShutdown")

    def handle(self, index: int) -> Handle:
        """Return the handle of the GPU that nvidia-smi gives this index."""
        return self._call("nvmlDeviceGetHandleByIndex", index)

    def uuid(self, handle: Handle) -> str:
        """Return the UUID."""
        return str(self._call("nvmlDeviceGetUUID", handle))

    def name(self, handle: Handle) -> str:
        """Return the product's name."""
        return str(self._call("nvmlDeviceGetName", handle))

    def is_cut(self, handle: Handle) -> bool:
        """Whether the card is cut into parts (MIG)."""
        try:
            current, _ = self._call("nvmlDeviceGetMigMode", handle)
        except NotSupported:
            return False
        return bool(current)

    def memory(self, handle: Handle) -> Memory:
        """Read the memory. Costs below 0.1 ms."""
        try:
            info = self._call("nvmlDeviceGetMemoryInfo", handle, self._api.nvmlMemory_v2)
        except NotSupported:  # a driver older than 510
            info = self._call("nvmlDeviceGetMemoryInfo", handle)
            return Memory(int(info.total), int(info.used), None)
        return Memory(int(info.total), int(info.used), int(info.reserved))

    def processes(self, handle: Handle) -> list[GpuProcess]:
        """List the processes that compute on the GPU, as far as this process' pid namespace shows them."""
        return [
            GpuProcess(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory))
            for one in self._call("nvmlDeviceGetComputeRunningProcesses", handle)
        ]

    def _call(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._api, function)(*arguments)
        except pynvml.NVMLError as error:
            raise _error(error.value) from None
        except pynvml.NVMLLibraryMismatchError:  # the binding is newer than the driver
            raise NotSupported("not_supported") from None
        except Exception:
            raise NvmlError(IMPOSSIBLE) from None

    def _field(self, handle: Handle, *fields: Any) -> list[int]:
        """Read NVML's numbered fields, all of unsigned integers."""
        found = []
        for answer in self._answers(handle, fields):
            if isinstance(answer, NvmlError):
                raise answer
            found.append(answer)
        return found

    def _answers(self, handle: Handle, fields: Sequence[Any]) -> list[int | NvmlError]:
        """The same, with the error of each that cannot be read."""
        found: list[int | NvmlError] = []
        for answer in self._call("nvmlDeviceGetFieldValues", handle, list(fields)):
            if answer.nvmlReturn != pynvml.NVML_SUCCESS:
                found.append(_error(answer.nvmlReturn))
                continue
            narrow = answer.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
            found.append(int(answer.value.uiVal if narrow else answer.value.ullVal))
        return found

    def _utilization(self, handle: Handle) -> Readings:
        rates = self._call("nvmlDeviceGetUtilizationRates", handle)  # percent
        return {
            ("utilization_ratio", ""): rates.gpu / 100,
            ("memory_bandwidth_utilization_ratio", ""): rates.memory / 100,
        }

    def _figure(self, figure: Figure, handle: Handle) -> Readings:
        value = self._call(figure.function, handle, *figure.arguments)
        return {(figure.metric, figure.label): float(value * figure.times / figure.over)}

    def _memory_temperature(self, handle: Handle) -> Readings:
        (degrees,) = self._field(handle, pynvml.NVML_FI_DEV_MEMORY_TEMP)
        if not degrees:  # cards without the sensor say 0
            raise NotSupported("not_supported")
        return {("temperature_celsius", "memory"): float(degrees)}

    def _throttle(self, handle: Handle) -> Readings:
        try:
            bits = self._call("nvmlDeviceGetCurrentClocksEventReasons", handle)
        except NotSupported:  # a driver older than 535 has it by its former name
            bits = self._call("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        if not 0 <= bits < (1 << REASON_BITS) - 1:
            raise NvmlError(IMPOSSIBLE)
        return {("throttle", reason): float(bool(bits & bit)) for reason, bit in THROTTLE_REASONS.items()}

    def _nvlink(self, handle: Handle) -> Readings:
        """Of all links together, else the sum over those that answer: not every driver adds up every field.

        A counter that stands at zero is believed when no other one has counted anything either.
        """
        found: list[int] | None = None
        problem: NvmlError = NotSupported("not_supported")
        for *fields, unit in NVLINK:
            for links in ((ALL_LINKS,), range(MOST_LINKS)):
                if found and any(found):
                    break
                try:
                    found = [number * unit for number in self._over_links(handle, fields, links)]
                except NvmlError as error:
                    problem = problem if error.kind in NO_SUCH_LINK else error
        if found is None:
            raise problem
        return {("nvlink_bytes", "transmit"): float(found[0]), ("nvlink_bytes", "receive"): float(found[1])}

    def _over_links(self, handle: Handle, fields: Sequence[int], links: Sequence[int]) -> list[int]:
        """Each field summed over the links that tell all of them; those beyond the last fail."""
        answers = self._answers(handle, [(field, link) for link in links for field in fields])
        of_links = [answers[at : at + len(fields)] for at in range(0, len(answers), len(fields))]
        told = [numbers for one in of_links if len(numbers := [n for n in one if isinstance(n, int)]) == len(fields)]
        if not told:
            raise next(answer for answer in answers if isinstance(answer, NvmlError))
        return [sum(numbers) for numbers in zip(*told, strict=True)]


def _error(code: int) -> NvmlError:
    if code in UNSUPPORTED:
        return NotSupported("not_supported")
    return NvmlError(KINDS.get(code, f"error_{code}"))
