"""A machine with GPUs that there are not: on PYTHONPATH, beside `fake_nvml.py`, it stands in for NVML in every process.

PRETEND_GPUS names a JSON file, read at each question: a list of GPUs, each with `used` (bytes) and `processes`
([pid, bytes] each).
"""

import json
import os
from pathlib import Path

try:
    import fake_nvml
    import pynvml
except ImportError:  # an engine's Python has no NVML
    pynvml = None


def gpus():
    """The GPUs as the file has them now."""
    told = json.loads(Path(os.environ["PRETEND_GPUS"]).read_text(encoding="utf-8"))
    found = []
    for number, facts in enumerate(told):
        gpu = fake_nvml.FakeGpu(number)
        gpu.used, gpu.processes = facts["used"], [tuple(one) for one in facts["processes"]]
        found.append(gpu)
    return found


if pynvml is not None and "PRETEND_GPUS" in os.environ:

    class Told(fake_nvml.FakeNvml):
        """NVML of the file's GPUs."""

        def nvmlDeviceGetCount(self):
            self.gpus = gpus()
            return len(self.gpus)

        def _ask(self, function, gpu):
            now = gpus()[int(gpu.uuid.removeprefix("GPU-"))]
            gpu.used, gpu.processes = now.used, now.processes
            return super()._ask(function, gpu)

    api = Told()
    for name in dir(pynvml):
        if name in ("nvmlInit", "nvmlShutdown") or name.startswith("nvmlDevice"):
            setattr(pynvml, name, getattr(api, name))
