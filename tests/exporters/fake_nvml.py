"""A stand-in for pynvml: GPUs of known figures, and the faults that real ones have, with NVML's own error codes."""

from types import SimpleNamespace

import pynvml

GIB = 1 << 30


class FakeGpu:
    def __init__(self, number=0, **figures):
        self.uuid, self.name = f"GPU-{number}", "NVIDIA H200"
        self.total, self.used, self.reserved = 141 * GIB, 2 * GIB, GIB // 2
        self.processes = []  # (pid, bytes or None)
        self.figures = {
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
            "nvmlDeviceGetPowerUsage": 612_345,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": 9_876_543,
            "nvmlDeviceGetTemperature": 63,
            "nvmlDeviceGetClockInfo": {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201},
            "nvmlDeviceGetCurrentClocksEventReasons": pynvml.nvmlClocksEventReasonSwPowerCap
            | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
            "nvmlDeviceGetTotalEccErrors": {
                pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED: 7,
                pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: 1,
            },
            "nvmlDeviceGetPcieThroughput": {
                pynvml.NVML_PCIE_UTIL_TX_BYTES: 1500,
                pynvml.NVML_PCIE_UTIL_RX_BYTES: 2500,
            },
            **figures,
        }
        self.fields = {
            pynvml.NVML_FI_DEV_MEMORY_TEMP: (pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 71),
            pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 10),
            pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 20),
        }
        self.faults = {}
        """function -> NVML's error code; "*" is every function that takes a handle."""


class FakeNvml:
    nvmlMemory_v2 = pynvml.nvmlMemory_v2

    def __init__(self, *gpus):
        self.gpus = list(gpus)
        self.open_fault = None
        self.opened = False
        self.calls = []

    def nvmlInit(self):
        self.calls.append("nvmlInit")
        if self.open_fault:
            raise pynvml.NVMLError(self.open_fault)
        self.opened = True

    def nvmlShutdown(self):
        if not self.opened:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        self.opened = False

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self._ask("nvmlDeviceGetHandleByIndex", self.gpus[index])

    def _ask(self, function, gpu):
        self.calls.append(function)
        fault = gpu.faults.get(function, gpu.faults.get("*"))
        if not self.opened:
            fault = pynvml.NVML_ERROR_UNINITIALIZED
        if fault:
            raise pynvml.NVMLError(fault)
        return gpu

    def nvmlDeviceGetUUID(self, gpu):
        return self._ask("nvmlDeviceGetUUID", gpu).uuid

    def nvmlDeviceGetName(self, gpu):
        return self._ask("nvmlDeviceGetName", gpu).name

    def nvmlDeviceGetMemoryInfo(self, gpu, version=None):
        if version:
            self._ask("nvmlDeviceGetMemoryInfo_v2", gpu)
            return SimpleNamespace(total=gpu.total, used=gpu.used, reserved=gpu.reserved)
        self._ask("nvmlDeviceGetMemoryInfo", gpu)
        return SimpleNamespace(total=gpu.total, used=gpu.used + gpu.reserved)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        self._ask("nvmlDeviceGetComputeRunningProcesses", gpu)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.processes]

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        self._ask("nvmlDeviceGetFieldValues", gpu)
        answers = []
        for field in fields:
            number = field[0] if isinstance(field, tuple) else field
            number = field if field in gpu.fields else number  # of one link, or of whatever is asked for
            if number in gpu.fields:
                kind, value = gpu.fields[number]
                wide = kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
                # The unused half of a narrow value is whatever was in memory.
                union = SimpleNamespace(uiVal=value % 2**32, ullVal=value if wide else value + (0xDEAD << 32))
                answers.append(SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, valueType=kind, value=union))
            else:
                answers.append(SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED, valueType=0, value=None))
        return answers

    def __getattr__(self, function):
        def read(gpu, which=None, *_):
            if function not in gpu.figures:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            figure = self._ask(function, gpu).figures[function]
            return figure[which] if isinstance(figure, dict) else figure

        return read
