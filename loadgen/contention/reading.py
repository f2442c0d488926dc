"""What is known of one block's machine, as the manifest keeps it. Plain data."""

from __future__ import annotations

import dataclasses
from typing import Literal

SideName = Literal["engine", "client"]
Kind = Literal["others", "kept", "steal", "throttled", "stopped", "memory", "io", "heat", "gpu_clocks", "gpu_shared"]
"""What was found; `loadgen.contention.rule` says what each means."""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """What one side's processes went through while a block ran. Shares are of the block's time, 0 to 1; None where
    nobody tells."""

    processes: int
    cores: tuple[int, ...]
    """Those that they may run on."""
    own_share: float | None = None
    """Of these cores' time, what the engine and the load generator used."""
    others_share: float | None = None
    """Of these cores' time, what all other processes used, at least."""
    waiting_share: float | None = None
    """For how long the thread that waited most was ready to run and had no CPU."""
    kept_share: float | None = None
    """The part of that which other processes account for."""
    steal_share: float | None = None
    """Of these cores' time, what the hypervisor took."""
    throttled_share: float | None = None
    """Of the periods of their control group's CPU quota, those that it was used up in."""
    stopped_s: float = 0.0
    """For how long one of them was stopped by a signal, to a quarter of a second."""
    pressure: dict[str, float] = dataclasses.field(default_factory=dict)
    """Pressure stall by kind (`cpu some`, `memory full`, ...): of their control group where it tells, else the
    machine's."""
    megahertz: float | None = None
    heats: int | None = None
    """How often the clocks of these cores were held down because it was too hot."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """What one of the engine's GPUs went through, by its exporter."""

    gpu: str
    megahertz: float | None = None
    held_down: dict[str, float] = dataclasses.field(default_factory=dict)
    """Share of the samples in which its clocks were held down, by reason."""
    other_processes: int | None = None
    """Processes on it that belong to no engine, at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that others did to a block."""

    kind: Kind
    side: SideName
    value: float
    """A share; seconds where something was stopped, a count of processes or of times where it is one."""
    voids: bool
    """Whether the block decides nothing for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contention:
    """What else the machine did during one block."""

    seconds: float
    engine: Side | None = None
    """None where none of its processes is on this machine, or can be seen."""
    client: Side | None = None
    """The processes that time requests. None likewise."""
    gpus: tuple[Gpu, ...] = ()
    busiest: tuple[tuple[str, float], ...] = ()
    """The other processes that used most CPU, by name, in cores."""
    findings: tuple[Finding, ...] = ()

    @property
    def void(self) -> bool:
        """Whether the block decides nothing for it."""
        return any(finding.voids for finding in self.findings)
