"""What was measured, kept as JSON below `.bakeoff/`, one file a peer, written after every run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadgen.files import atomic_write, cannot_be_written

FIGURES = {
    "ttft_p50_ms": ("TTFT p50", ".3f"),
    "ttft_p99_ms": ("TTFT p99", ".3f"),
    "tpot_p50_percent": ("TPOT p50", ".3f"),
    "tpot_p99_percent": ("TPOT p99", ".3f"),
    "tpot_mean_percent": ("TPOT mean", "+.3f"),
    "cpu_us_per_event": ("us/event", ".1f"),
    "peak_mb": ("MB", ".0f"),
}
"""The figures of a run: their headings, and how they are written."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Run(_Model):
    """One run of one peer at one load. Errors are sizes, sign left out, unless they are means."""

    peer: str = ""
    load: str = ""
    repeat: int = 0
    requests: int = 0
    """Requests judged."""
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_percent: float | None = None
    tpot_p99_percent: float | None = None
    tpot_mean_percent: float | None = None
    """Of the mean TPOT, signed."""
    cpu_us_per_event: float | None = None
    peak_mb: float | None = None
    oracle_valid: bool = True
    """Whether the server kept its schedule. Its real times are compared with all the same."""
    command: str = ""
    seconds: float = 0.0
    """What the whole run took."""
    load_average: float = 0.0
    """Before the first run of the command that made this one."""
    error: str | None = None
    """Why there are no figures."""


class PeerResult(_Model):
    """All that is known of a peer on one machine."""

    peer: str
    basis: dict[str, str] = Field(default_factory=dict)
    """Versions and machine: runs of another basis are not put beside these."""
    measured_at: str = ""
    skipped: str | None = None
    """Why it could not be set up."""
    runs: list[Run] = Field(default_factory=list)

    def of(self, load: str) -> list[Run]:
        """The runs at one load."""
        return [run for run in self.runs if run.load == load]

    def has(self, load: str, repeat: int) -> bool:
        """Whether a run is there, and succeeded."""
        return any(run.repeat == repeat and run.error is None for run in self.of(load))

    def put(self, run: Run) -> None:
        """Add a run in place of the one that it repeats. A load's first run drops what was there of that load."""
        drop_all = run.repeat == 0
        self.runs = [old for old in self.runs if old.load != run.load or not (drop_all or old.repeat == run.repeat)]
        self.runs.append(run)


class Store:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, peer: str, basis: dict[str, str] | None) -> PeerResult:
        """What is kept of a peer; an empty result where nothing is, or it is of another basis (None: of any)."""
        path = self.folder / f"{peer}.json"
        try:
            kept = PeerResult.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return PeerResult(peer=peer, basis=basis or {})
        return kept if basis is None or kept.basis == basis else PeerResult(peer=peer, basis=basis)

    def save(self, result: PeerResult) -> None:
        """Write a peer's results. Raises UserError: the disk does not take them."""
        path = self.folder / f"{result.peer}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, result.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise cannot_be_written(path, error) from None


def medians(runs: Sequence[Run]) -> dict[str, float | None]:
    """The median of each figure over the runs that have it."""
    found: dict[str, float | None] = {}
    for name in FIGURES:
        values = [getattr(run, name) for run in runs if getattr(run, name) is not None]
        found[name] = statistics.median(values) if values else None
    return found
