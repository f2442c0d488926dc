"""Keeps watch on all GPUs: memory 20 times a second, everything else once a second, and lost GPUs and drivers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from exporters.gpu_limits import Possible, possible_memory, possible_processes
from exporters.memory_peak import PeakWindow
from exporters.nvml import IMPOSSIBLE, GpuProcess, Handle, Memory, NotSupported, Nvml, NvmlError, Readings
from exporters.patience import Late, Patience

SAMPLE_EVERY_S = 0.05
ROUND_EVERY_S = 1.0
ROUND_SHARE = 0.01
"""Share of one core that reading figures may take, and processes likewise: many GPUs are read less often."""
LOOK_AGAIN_S = 15.0
"""Pause between openings of NVML while there is no GPU, or one that does not answer."""
RETRY_S = 1.0
"""Pause between samples of a GPU that did not answer."""
STALE_S = 5.0
"""After this long without any answer a GPU counts as down."""
CALL_LIMIT_S, OPEN_LIMIT_S = 1.0, 10.0
"""Longest that a figure, and NVML's opening, is waited for."""
GONE = ("gpu_is_lost", "driver_not_loaded", "uninitialized")
"""Errors that say that there is no GPU to ask any more."""
NO_ANSWER = "no_answer"

T = TypeVar("T")

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
        self.lost = False
        self.errors: Counter[str] = Counter()
        self.memory: Memory | None = None
        self.peak = PeakWindow(window_s)
        self.readings: Readings = {}
        self.engines: dict[str, EngineUse] = {}
        self.unsupported: set[object] = set()
        self.told: set[tuple[str, str]] = set()
        self.possible = Possible()
        self.answered_at = float("-inf")
        self.sample_due = float("-inf")

    def state(self, now: float) -> GpuState:
        """Return what is known; counts as a scrape of the peak."""
        up = not self.lost and now - self.answered_at <= STALE_S
        if not up:
            return GpuState(self.index, self.uuid, self.name, False, dict(self.errors))
        return GpuState(
            self.index, self.uuid, self.name, True, dict(self.errors),
            self.memory, self.peak.scrape(now), self.readings, self.engines,
        )  # fmt: skip


@dataclasses.dataclass(slots=True)
class _Turn:
    """What is asked of every GPU in turn, each second, or less often where that would cost too much."""

    of_gpu: Callable[[_Gpu], Iterator[Callable[[], None]]]
    left: Iterator[Callable[[], None]] = dataclasses.field(default_factory=lambda: iter(()))
    """What of it is still to be done."""
    due: float = float("-inf")


class GpuMonitor:
    """The watch. One thread calls `run` (or `step`), any other `scrape`, which never waits for NVML.

    Args:
        nvml: the library.
        engines_of: maps pids to engines, at once; may leave out some.
        window_s: least time that a peak stays visible, s (PeakWindow).
        patience: how long a call is waited for.
        clock: monotonic seconds.
        cpu_clock: seconds of CPU time that the watch has taken; by default those of `patience`.
    """

    def __init__(
        self,
        nvml: Nvml,
        engines_of: Callable[[Sequence[int]], Mapping[int, str]],
        *,
        window_s: float,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] | None = None,
    ) -> None:
        self._nvml, self._engines_of, self._window_s = nvml, engines_of, window_s
        self._patience = patience or Patience(CALL_LIMIT_S)
        self._clock, self._cpu_clock = clock, cpu_clock or self._patience.cpu_s
        self._lock = threading.RLock()
        self._gpus: list[_Gpu] = []
        self._devices = 0
        self._look_due = float("-inf")
        # Processes cost next to nothing, and who shares a GPU must be told before it is forgotten.
        self._turns = _Turn(self._ask_processes), _Turn(self._ask_figures)
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
            with contextlib.suppress(Late):
                self._patience.ask("driver", "close", self._nvml.close)

    def step(self) -> float:
        """Do the one thing that is due; returns the seconds until something is."""
        now = self._clock()
        if now >= self._look_due and not self._healthy():
            self._look_due = now + LOOK_AGAIN_S
            if self._patience.all_returned:  # NVML must not be closed around a call that is in it
                self._look()
            return 0.0
        due = [gpu for gpu in self._gpus if gpu.handle is not None and now >= gpu.sample_due]
        if due:
            for gpu in due:
                self._sample(gpu, now)
            return 0.0
        for turn in self._turns:
            piece = next(turn.left, None)
            if piece is not None:
                piece()
                return 0.0
            if now >= turn.due and not all(gpu.lost for gpu in self._gpus):
                turn.due, turn.left = now + ROUND_EVERY_S, self._timed(turn, now)
                return 0.0
        return max(0.0, min(self._next_due() - now, LOOK_AGAIN_S))

    def _healthy(self) -> bool:
        return self._devices > 0 and not any(gpu.lost for gpu in self._gpus)

    def _next_due(self) -> float:
        dues = [gpu.sample_due for gpu in self._gpus if gpu.handle is not None]
        dues += [] if self._healthy() else [self._look_due]
        dues += [turn.due for turn in self._turns] if not all(gpu.lost for gpu in self._gpus) else []
        return min(dues)

    def _look(self) -> None:
        """Open NVML anew and take stock."""
        for turn in self._turns:
            turn.left = iter(())
        try:
            count = self._patience.ask("driver", "open", self._open, OPEN_LIMIT_S)
        except (NvmlError, Late) as error:
            kind = error.kind if isinstance(error, NvmlError) else NO_ANSWER
            self._complain(f"NVML cannot be opened: {kind}")
            with self._lock:
                self._devices = 0
                for gpu in self._gpus:
                    gpu.errors[kind] += 1
                    self._take_down(gpu, kind, lost=True)
            return
        self._complain("" if count else "the driver knows no GPU")
        found: list[_Gpu] = []
        for index in range(count):
            found.append(self._find(index, found))
        with self._lock:
            for gpu in self._gpus:
                if gpu not in found:  # it fell off the bus, and the driver no longer counts it
                    gpu.errors["not_found"] += 1
                    self._take_down(gpu, "not_found", lost=True)
            missing = [gpu for gpu in self._gpus if gpu not in found and gpu.uuid]
            self._gpus = sorted([*found, *missing], key=lambda gpu: (gpu.index, gpu.uuid))
            self._devices = count

    def _open(self) -> int:
        self._nvml.close()
        return self._nvml.open()

    def _find(self, index: int, taken: Sequence[_Gpu]) -> _Gpu:
        """Return the GPU at an index: one that is known already if there is, with a new handle."""
        gpu = next((gpu for gpu in self._gpus if gpu.index == index and gpu not in taken), None)
        gpu = gpu or _Gpu(index, "", "", self._window_s)
        gpu.unsupported.clear()
        handle = self._ask(gpu, "handle", functools.partial(self._nvml.handle, index))
        if handle is None:
            self._take_down(gpu, "no_handle", lost=True)
            return gpu
        uuid = self._ask(gpu, "uuid", functools.partial(self._nvml.uuid, handle))
        if uuid and uuid != gpu.uuid:
            same = next((gpu for gpu in self._gpus if gpu.uuid == uuid and gpu not in taken), None)
            gpu = same or (_Gpu(index, "", "", self._window_s) if gpu.uuid else gpu)
        name = self._ask(gpu, "name", functools.partial(self._nvml.name, handle))
        if uuid and not gpu.uuid:
            gpu.uuid = uuid
            log.info("gpu_found", extra={"fields": {"gpu": index, "uuid": uuid, "name": name or ""}})
        with self._lock:
            gpu.index, gpu.handle, gpu.sample_due, gpu.name = index, handle, float("-inf"), name or gpu.name
            gpu.unsupported.clear()
        return gpu

    def _ask(self, gpu: _Gpu, what: str, call: Callable[[], T]) -> T | None:
        """Return the answer; None where there is none, and note why."""
        if what in gpu.unsupported:
            return None
        answer, kind = None, ""
        try:
            answer = self._patience.ask(gpu.index, what, call)
        except NotSupported:
            gpu.unsupported.add(what)
        except NvmlError as error:
            kind = error.kind
        except Late:
            kind = NO_ANSWER
        if kind not in (NO_ANSWER, *GONE):
            gpu.answered_at = self._clock()
        if what == "memory" and gpu.lost and kind not in GONE:
            log.info("gpu_up", extra={"fields": {"gpu": gpu.index, "uuid": gpu.uuid}})
            gpu.lost = False
        if kind:
            self._fail(gpu, what, kind)
        return answer

    def _sample(self, gpu: _Gpu, now: float) -> None:
        if "memory" in gpu.unsupported:
            gpu.sample_due = float("inf")
            return
        found = self._ask(gpu, "memory", functools.partial(self._nvml.memory, gpu.handle))
        memory, wrong = possible_memory(found) if found else (None, False)
        if wrong:
            self._fail(gpu, "memory", IMPOSSIBLE)
        after = self._clock()
        with self._lock:
            gpu.memory = memory
            refused = found is None and "memory" not in gpu.unsupported
            gpu.sample_due = now + RETRY_S if refused else max(gpu.sample_due + SAMPLE_EVERY_S, now)
            if memory is not None and memory.used is not None:
                gpu.peak.add(after, memory.used)

    def _timed(self, turn: _Turn, began: float) -> Iterator[Callable[[], None]]:
        """Yield the calls of a turn, in pieces so short that samples fit between, and see what they cost."""
        cpu = 0.0
        for gpu in [gpu for gpu in self._gpus if not gpu.lost]:
            for piece in turn.of_gpu(gpu):
                cpu -= self._cpu_clock()
                yield piece
                cpu += self._cpu_clock()
        turn.due = began + max(ROUND_EVERY_S, cpu / ROUND_SHARE)

    def _ask_processes(self, gpu: _Gpu) -> Iterator[Callable[[], None]]:
        yield functools.partial(self._read_processes, gpu)

    def _ask_figures(self, gpu: _Gpu) -> Iterator[Callable[[], None]]:
        readings: Readings = {}
        for what in self._nvml.readers:
            yield functools.partial(self._read, gpu, what, readings)
        yield functools.partial(self._publish, gpu, readings)

    def _read(self, gpu: _Gpu, what: str, readings: Readings) -> None:
        if gpu.lost:
            return
        found = self._ask(gpu, what, functools.partial(self._nvml.readers[what], gpu.handle)) or {}
        now = self._clock()
        for figure, value in found.items():
            if gpu.possible(figure, value, now):
                readings[figure] = value
            else:
                self._fail(gpu, what, IMPOSSIBLE)

    def _read_processes(self, gpu: _Gpu) -> None:
        engines: dict[str, EngineUse] = {}
        found = None if gpu.lost else self._ask(gpu, "processes", functools.partial(self._nvml.processes, gpu.handle))
        if found is not None:
            processes, wrong = possible_processes(found, gpu.memory.total if gpu.memory else None)
            if wrong:
                self._fail(gpu, "processes", IMPOSSIBLE)
            engines = use_by_engine(processes, self._engines_of([one.pid for one in processes]))
        with self._lock:
            gpu.engines = engines

    def _publish(self, gpu: _Gpu, readings: Readings) -> None:
        with self._lock:
            gpu.readings = {} if gpu.lost else readings

    def _fail(self, gpu: _Gpu, what: str, kind: str) -> None:
        """Note what could not be read. The memory, which is asked for all the time, says whether the GPU is gone."""
        with self._lock:
            gpu.errors[kind] += 1
        if kind in GONE and (what in ("memory", "handle", "uuid") or "memory" in gpu.unsupported):
            self._take_down(gpu, kind)
        elif (what, kind) not in gpu.told:
            gpu.told.add((what, kind))
            fields = {"gpu": gpu.index, "uuid": gpu.uuid, "figure": what, "reason": kind}
            log.warning("figure_unreadable", extra={"fields": fields})

    def _take_down(self, gpu: _Gpu, kind: str, *, lost: bool = False) -> None:
        """Note that a GPU is gone. Where it is `lost` its handle is, too."""
        if not gpu.lost:  # a GPU that is gone for an hour is one line, not 3600
            log.warning("gpu_down", extra={"fields": {"gpu": gpu.index, "uuid": gpu.uuid, "reason": kind}})
        with self._lock:
            gpu.lost, gpu.memory, gpu.readings, gpu.engines = True, None, {}, {}
            gpu.handle = None if lost else gpu.handle

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning("no_gpu" if text else "gpus_are_back", extra={"fields": {"reason": text} if text else {}})
