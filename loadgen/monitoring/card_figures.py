"""What each GPU went through over a block, and over the blocks of a cell, by readings of its exporter's page. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from loadgen.monitoring.engine_page import HELD
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.monitoring.tally import Tally, fell, integral, near, peak, reached, rise

GpuScope = Literal["engine", "all"]
SCOPES: tuple[GpuScope, ...] = ("engine", "all")
HZ_PER_MHZ = 1e6
LINKS = ("nvlink_tx", "nvlink_rx")


@dataclasses.dataclass(frozen=True, slots=True)
class CardFigures:
    """One GPU over some time. None is what its exporter does not tell."""

    gpu: str
    """Its index, as nvidia-smi has it."""
    seconds: float
    """How long it was looked at, in `blocks`."""
    blocks: int
    memory_peak_bytes: float | None
    """Of all that is on it."""
    engine_memory_peak_bytes: float | None
    """Of the engine's own processes."""
    power_watts: float | None
    sm_megahertz: float | None
    """Mean clock of its multiprocessors."""
    held_down: dict[str, float] | None
    """Share of the time in which its clocks were held down, by reason, of those that happened."""
    nvlink_transmit_bytes: float | None
    nvlink_receive_bytes: float | None
    """Meanwhile, over all its links."""
    pcie_transmit_bytes_per_second: float | None
    pcie_receive_bytes_per_second: float | None
    """Mean of samples of 20 ms, about one a second."""

    @property
    def nvlink_bytes_per_second(self) -> tuple[float, float] | None:
        """Sent and received."""
        if self.nvlink_transmit_bytes is None or self.nvlink_receive_bytes is None:
            return None
        return self.nvlink_transmit_bytes / self.seconds, self.nvlink_receive_bytes / self.seconds


def card_figures(cards: Mapping[str, Tally]) -> tuple[CardFigures, ...]:
    """Make figures of sums, in order of the GPUs' indices."""
    return tuple(_figures(gpu, cards[gpu]) for gpu in sorted(cards, key=lambda gpu: (len(gpu), gpu)))


def _figures(gpu: str, found: Tally) -> CardFigures:
    def over_time(name: str, factor: float = 1.0) -> float | None:
        return found.sums[name] * factor / found.seconds if name in found.sums else None

    held = {reason: over_time(f"held_{reason}") for reason in HELD}
    known = [share for share in held.values() if share is not None]
    return CardFigures(
        gpu=gpu,
        seconds=found.seconds,
        blocks=found.blocks,
        memory_peak_bytes=found.peaks.get("peak"),
        engine_memory_peak_bytes=found.peaks.get("own"),
        power_watts=over_time("joules"),
        sm_megahertz=over_time("sm_hz", 1 / HZ_PER_MHZ),
        held_down={reason: share for reason, share in held.items() if share} if known else None,
        nvlink_transmit_bytes=found.sums.get("nvlink_tx"),
        nvlink_receive_bytes=found.sums.get("nvlink_rx"),
        pcie_transmit_bytes_per_second=over_time("pcie_tx"),
        pcie_receive_bytes_per_second=over_time("pcie_rx"),
    )


def of_gpus(name: str) -> bool:
    """Whether a name of a reading is of the GPU exporter's page."""
    return name.startswith("gpu_")


def own_gpus(samples: BlockSamples, start: float, end: float) -> frozenset[str]:
    """The indices of the GPUs that the engine had processes on between two moments; empty where nobody tells."""
    known = (name for name in samples.names if name.startswith("gpu_on:"))
    return frozenset(name.partition(":")[2] for name in known if peak(samples.points(name), start, end) is not None)


def gpu_tally(samples: BlockSamples, start: float, end: float) -> Tally | None:
    """Of the GPU exporter's page: of the GPUs that the engine has processes on, and of all."""
    moments = [at for at, reading in samples.rows if of_gpus(next(iter(reading), ""))]
    span = reached(moments, start, end)
    if span is None:
        return None
    sums: dict[str, float] = {}
    peaks: dict[str, float] = {}
    known = {name.partition(":")[2] for name in samples.names if name.startswith(("gpu_joules:", "gpu_watts:"))}
    own = known & own_gpus(samples, *span)
    cards = {gpu: _card(samples, gpu, *span) for gpu in known}
    for scope, memory, gpus in (("engine", "gpu_memory", own), ("all", "gpu_memory_all", known)):
        most = peak(samples.points(memory), *span)
        if most is not None:
            peaks[scope] = most
        joules = [cards[gpu].sums.get("joules") for gpu in sorted(gpus)]
        if joules and all(one is not None for one in joules):
            sums |= {
                f"watts_s:{scope}": sum(one for one in joules if one is not None),
                f"gpu_s:{scope}": span[1] - span[0],
            }
    return Tally(sums, peaks, span[1] - span[0], cards={gpu: cards[gpu] for gpu in own or known})


def _card(samples: BlockSamples, gpu: str, start: float, end: float) -> Tally:
    """Of one GPU."""
    sums, peaks = {}, {}
    joules = _joules(samples, gpu, start, end)
    if joules is not None:
        sums["joules"] = joules
    for name in LINKS:
        points = samples.points(f"gpu_{name}:{gpu}")
        risen = None if fell(near(points, start, end)) else rise(points, start, end)
        if risen is not None:
            sums[name] = risen
    for name in ("sm_hz", "pcie_tx", "pcie_rx", *(f"held_{reason}" for reason in HELD)):
        points = samples.points(f"gpu_{name}:{gpu}")
        if points:
            sums[name] = integral(points, start, end)
    for name in ("peak", "own"):
        most = peak(samples.points(f"gpu_{name}:{gpu}"), start, end)
        if most is not None:
            peaks[name] = most
    return Tally(sums, peaks, end - start)


def _joules(samples: BlockSamples, gpu: str, start: float, end: float) -> float | None:
    """Energy by the counter, else by the power over time."""
    counted = samples.points(f"gpu_joules:{gpu}")
    if len(counted) > 1 and not fell(near(counted, start, end)):
        return rise(counted, start, end)
    watts = samples.points(f"gpu_watts:{gpu}")
    return integral(watts, start, end) if watts else None
