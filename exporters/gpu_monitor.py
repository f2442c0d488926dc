"""Keeps watch on all GPUs: memory 20 times a second, everything else once a second, and lost GPUs and drivers."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from exporters.memory_peak import PeakWindow
from exporters.nvml import GpuProcess, Handle, Memory, NotSupported, Nvml, NvmlError, Readings

SAMPLE_EVERY_S = 0.05
ROUND_EVERY_S = 1.0
ROUND_SHARE = 0.01
"""Share of one core that reading everything may take: many GPUs are read less often."""
LOOK_AGAIN_S = 15.0
"""Pause between openings of NVML while there is no GPU, or one that does not answer."""
RETRY_S = 1.0
"""Pause between samples of a GPU that did not answer."""
STALE_S = 5.0
"""After this long without a sample a GPU counts as down: NVML itself may hang."""

log = logging.getLogger("exporters.gpu")


@dataclasses.dataclass(frozen=True, slots=True)
class EngineUse:
    """What one engine's processes have of one GPU."""

    processes: int
    memory: int | None
    """Bytes; None where the driver does not tell it of each of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuState:
    """All that is known of one GPU at one moment. Of a GPU that is down: who it is, and the errors."""

    index: int
    uuid: str
    name: str
    up: bool
    errors: Mapping[str, int]
    memory: Memory | None = None
    peak: int | None = None
    readings: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    engines: Mapping[str, EngineUse] = dataclasses.field(default_factory=dict)


def use_by_engine(processes: Sequence[GpuProcess], engine_of: Mapping[int, str]) -> dict[str, EngineUse]:
    """Sum the processes of each engine, those left out whose owner is not known yet."""
    found: dict[str, EngineUse] = {}
    for one in processes:
        engine = engine_of.get(one.pid)
        if engine is None:
            continue
        before = found.get(engine, EngineUse(0, 0))
        memory = None if before.memory is None or one.used is None else before.memory + one.used
        found[engine] = EngineUse(before.processes + 1, memory)
    return found


class _Gpu:
    """One GPU, by its UUID; survives a new opening of NVML with another handle."""

    def __init__(self, index: int, uuid: str, name: str, window_s: float) -> None:
        self.index, self.uuid, self.name = index, uuid, name
        self.handle: Handle | None = None
        self.up = True
        self.errors: Counter[str] = Counter()
        self.memory: Memory | None = None
        self.peak = PeakWindow(window_s)
        self.readings: Readings = {}
        self.engines: dict[str, EngineUse] = {}
        self.unsupported: set[object] = set()
        self.sampled_at = float("-inf")
        self.sample_due = float("-inf")

    def state(self, now: float) -> GpuState:
        """Return what is known; counts as a scrape of the peak."""
        up = self.up and now - self.sampled_at <= STALE_S
        if not up:
            return GpuState(self.index, self.uuid, self.name, False, dict(self.errors))
        return GpuState(
            self.index, self.uuid, self.name, True, dict(self.errors),
            self.memory, self.peak.scrape(now), self.readings, self.engines,
        )  # fmt: skip


class GpuMonitor:
    """The watch. One thread calls `run` (or `step`), any other `scrape`, which never waits for NVML.

    Args:
        nvml: the library.
        engines_of: maps pids to engines, at once; may leave out some.
        window_s: least time that a peak stays visible, s (PeakWindow).
        clock: monotonic seconds.
        cpu_clock: seconds of CPU time of the calling thread.
    """

    def __init__(
        self,
        nvml: Nvml,
        engines_of: Callable[[Sequence[int]], Mapping[int, str]],
        *,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._nvml, self._engines_of, self._window_s = nvml, engines_of, window_s
        self._clock, self._cpu_clock = clock, cpu_clock
        self._lock = threading.RLock()
        self._gpus: list[_Gpu] = []
        self._devices = 0
        self._look_due = float("-inf")
        self._round: Iterator[Callable[[], None]] = iter(())
        self._round_due = float("-inf")
        self._complaint = ""

    def scrape(self) -> tuple[int, list[GpuState]]:
        """Return the number of GPUs that the driver knows, and all GPUs that were ever seen."""
        now = self._clock()
        with self._lock:
            return self._devices, [gpu.state(now) for gpu in self._gpus]

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        try:
            while not stop.wait(self.step()):
                pass
        finally:
            self._nvml.close()

    def step(self) -> float:
        """Do the one thing that is due; returns the seconds until something is."""
        now = self._clock()
        if now >= self._look_due and (not self._devices or not all(gpu.up for gpu in self._gpus)):
            self._look_due = now + LOOK_AGAIN_S
            self._look()
            return 0.0
        due = [gpu for gpu in self._gpus if gpu.handle is not None and now >= gpu.sample_due]
        if due:
            for gpu in due:
                self._sample(gpu, now)
            return 0.0
        piece = next(self._round, None)
        if piece is not None:
            piece()
            return 0.0
        if now >= self._round_due and any(gpu.up for gpu in self._gpus):
            self._round_due = now + ROUND_EVERY_S
            self._round = self._read_all(now)
            return 0.0
        return max(0.0, min(self._next_due() - now, LOOK_AGAIN_S))

    def _next_due(self) -> float:
        healthy = bool(self._gpus) and self._devices > 0 and all(gpu.up for gpu in self._gpus)
        dues = [gpu.sample_due for gpu in self._gpus if gpu.handle is not None]
        dues += [] if healthy else [self._look_due]
        dues += [self._round_due] if any(gpu.up for gpu in self._gpus) else []
        return min(dues)

    def _look(self) -> None:
        """Open NVML anew and take stock."""
        self._nvml.close()
        self._round = iter(())
        try:
            count = self._nvml.open()
        except NvmlError as error:
            self._complain(f"NVML cannot be opened: {error.kind}")
            with self._lock:
                self._devices = 0
                for gpu in self._gpus:
                    self._take_down(gpu, error.kind, lost=True)
            return
        self._complain("" if count else "the driver knows no GPU")
        found = [self._find(index) for index in range(count)]
        with self._lock:
            for gpu in self._gpus:
                if gpu not in found:  # it fell off the bus, and the driver no longer counts it
                    self._take_down(gpu, "not_found", lost=True)
            missing = [gpu for gpu in self._gpus if gpu not in found and gpu.uuid]
            self._gpus = sorted([*found, *missing], key=lambda gpu: (gpu.index, gpu.uuid))
            self._devices = count

    def _find(self, index: int) -> _Gpu:
        """Return the GPU at an index: one that is known already if there is, with a new handle."""
        try:
            handle = self._nvml.handle(index)
            uuid, name = self._nvml.identity(handle)
        except NvmlError as error:
            known = [gpu for gpu in self._gpus if gpu.index == index]
            gpu = known[0] if known else _Gpu(index, "", "", self._window_s)
            self._take_down(gpu, error.kind, lost=True)
            return gpu
        known = [gpu for gpu in self._gpus if gpu.uuid == uuid]
        gpu = known[0] if known else _Gpu(index, uuid, name, self._window_s)
        if not known:
            log.info("gpu_found", extra={"fields": {"gpu": index, "uuid": uuid, "name": name}})
        with self._lock:
            gpu.index, gpu.handle, gpu.sample_due = index, handle, float("-inf")
            gpu.unsupported.clear()
        return gpu

    def _sample(self, gpu: _Gpu, now: float) -> None:
        memory = None
        if "memory" not in gpu.unsupported:
            try:
                memory = self._nvml.memory(gpu.handle)
            except NotSupported:
                gpu.unsupported.add("memory")
            except NvmlError as error:
                gpu.sample_due = now + RETRY_S
                self._take_down(gpu, error.kind)
                return
        after = self._clock()
        with self._lock:
            if not gpu.up:
                log.info("gpu_up", extra={"fields": {"gpu": gpu.index, "uuid": gpu.uuid}})
            gpu.up, gpu.memory, gpu.sampled_at = True, memory, after
            gpu.sample_due = max(gpu.sample_due + SAMPLE_EVERY_S, now)
            if memory is not None:
                gpu.peak.add(after, memory.used)

    def _read_all(self, began: float) -> Iterator[Callable[[], None]]:
        """Yield the calls that read everything of every GPU, in pieces so short that samples fit between."""
        cpu = 0.0
        for gpu in [gpu for gpu in self._gpus if gpu.up]:
            readings: Readings = {}
            reads = [reader for reader in self._nvml.readers if reader not in gpu.unsupported]
            for piece in (
                *(functools.partial(self._read, gpu, reader, readings) for reader in reads),
                functools.partial(self._read_processes, gpu),
                functools.partial(self._publish, gpu, readings),
            ):
                cpu -= self._cpu_clock()
                yield piece
                cpu += self._cpu_clock()
        self._round_due = began + max(ROUND_EVERY_S, cpu / ROUND_SHARE)

    def _read(self, gpu: _Gpu, reader: Callable[[Handle], Readings], readings: Readings) -> None:
        if not gpu.up:
            return
        try:
            readings.update(reader(gpu.handle))
        except NotSupported:
            gpu.unsupported.add(reader)
        except NvmlError as error:
            self._fail(gpu, error.kind)

    def _read_processes(self, gpu: _Gpu) -> None:
        engines: dict[str, EngineUse] = {}
        if gpu.up and "processes" not in gpu.unsupported:
            try:
                processes = self._nvml.processes(gpu.handle)
                engines = use_by_engine(processes, self._engines_of([one.pid for one in processes]))
            except NotSupported:
                gpu.unsupported.add("processes")
            except NvmlError as error:
                self._fail(gpu, error.kind)
        with self._lock:
            gpu.engines = engines

    def _publish(self, gpu: _Gpu, readings: Readings) -> None:
        with self._lock:
            gpu.readings = readings if gpu.up else {}

    def _fail(self, gpu: _Gpu, kind: str) -> None:
        """Note a figure that could not be read. What says that the whole GPU is gone takes it down."""
        if kind in ("gpu_is_lost", "driver_not_loaded", "uninitialized"):
            self._take_down(gpu, kind)
        else:
            with self._lock:
                gpu.errors[kind] += 1

    def _take_down(self, gpu: _Gpu, kind: str, *, lost: bool = False) -> None:
        """Note that a GPU does not answer; one that is lost has no handle any more."""
        if gpu.up:  # a GPU that is lost for an hour is one line, not 3600
            log.warning("gpu_down", extra={"fields": {"gpu": gpu.index, "uuid": gpu.uuid, "reason": kind}})
        with self._lock:
            gpu.errors[kind] += 1
            gpu.up, gpu.memory, gpu.readings, gpu.engines = False, None, {}, {}
            gpu.handle = None if lost else gpu.handle

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning("no_gpu" if text else "gpus_are_back", extra={"fields": {"reason": text} if text else {}})
