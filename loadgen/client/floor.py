"""The client's floor: how far off its own figures are on this host, as `bakeoff calibrate` found it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written
from loadgen.machine import HOME, by_make, host_facts
from loadgen.message import joined, say
from loadgen.validation import Lenient, Words

SCHEMA_VERSION = 1
FLOOR_FILE = HOME / ".bakeoff" / "calibration.json"
QUOTED_STREAMS = 64
CALIBRATE = "make calibrate" if by_make() else "bakeoff calibrate"
NOT_CALIBRATED = say("not calibrated here: run `{command}`", command=CALIBRATE)


class Errors(Lenient):
    """Sizes of an error over requests (or gaps), sign left out."""

    p50: float
    p99: float
    max: float


class FloorStep(Lenient):
    """One load of the ladder."""

    streams: int
    requests: int
    """Requests compared: each stream's first one is left out."""
    events_per_s: float
    valid: bool
    """Whether the simulator kept its schedule. If not, this step decides nothing."""
    verdict: str
    """The simulator's own word for it."""
    oracle_lag_p99_ms: float | None = None
    oracle_write_p99_ms: float
    """How long a write took: the truth is no sharper than half of this."""
    ttft_error_ms: Errors
    itl_error_ms: Errors
    e2e_error_ms: Errors
    tpot_error_percent: Errors
    tpot_mean_error_percent: float
    """The mean TPOT against the true mean, signed."""
    read_lag_p99_ms: float | None = None
    cpu_us_per_event: float | None = None
    peak_rss_mb: float | None = None
    limited: bool | None = None
    """Whether the client called itself the limit; None where it does not judge."""
    limit_reasons: list[Words] = Field(default_factory=list)


class Floor(Lenient):
    """The content of `.bakeoff/calibration.json`."""

    schema_version: int = SCHEMA_VERSION
    measured_at: str
    """UTC, ISO 8601."""
    hostname: str
    host: dict[str, Any]
    packages: dict[str, str]
    git: dict[str, Any]
    server_core: int
    client_core: int
    realtime: bool
    """Whether the simulator had its core to itself (SCHED_FIFO)."""
    isolated: bool = False
    """Whether the client had SCHED_FIFO as well, which it has not in a run."""
    load_average: float
    """Of the last minute, before the start."""
    timing: dict[str, float]
    notes: list[str] = Field(default_factory=list)
    steps: list[FloorStep]

    @property
    def limited_at(self) -> int | None:
        """The fewest streams at which the client called itself the limit, in a step that counts."""
        return next((step.streams for step in self.steps if step.valid and step.limited), None)

    def is_of(self, hostname: str, cpu: str) -> bool:
        """Whether it was measured on this machine."""
        return self.hostname == hostname and self.host.get("cpu") == cpu

    def words(self) -> str:
        """One line for a report: the step at 64 streams, or the largest that counts."""
        valid = [step for step in self.steps if step.valid]
        if not valid:
            return say(
                "calibrated on {day}, but the simulator missed its schedule: repeat it when idle",
                day=self.measured_at[:10],
            )
        step = next((step for step in valid if step.streams == QUOTED_STREAMS), valid[-1])
        ttft, itl = step.ttft_error_ms, step.itl_error_ms
        found = say(
            "TTFT error p50 {ttft50}, p99 {ttft99} ms, ITL error p99 {itl} ms, TPOT off by {tpot} at {streams} "
            "streams, measured on {day}",
            ttft50=f"{ttft.p50:.2f}",
            ttft99=f"{ttft.p99:.2f}",
            itl=f"{itl.p99:.2f}",
            tpot=f"{step.tpot_mean_error_percent:+.3f}%",
            streams=step.streams,
            day=self.measured_at[:10],
        )
        if self.isolated:
            found = say("{floor}, client undisturbed", floor=found)
        limit = [say("client-limited from {streams} streams", streams=self.limited_at)] if self.limited_at else []
        return joined("{a}; {b}", [found, *limit])


def read_floor(path: Path = FLOOR_FILE) -> Floor:
    """Read a calibration. Raises UserError when there is none, or it is broken or of a later schema."""
    try:
        floor = Floor.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `{CALIBRATE}`.") from None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(f"{path}: not a readable calibration: {detail}. Run `{CALIBRATE}`.") from None
    if floor.schema_version > SCHEMA_VERSION:
        raise UserError(f"{path} was written by a later Bakeoff (schema {floor.schema_version}): run `{CALIBRATE}`.")
    return floor


def floor_facts(path: Path = FLOOR_FILE) -> dict[str, Any] | None:
    """The calibration of this very host as plain data, for a manifest; None when there is none."""
    try:
        floor = read_floor(path)
    except UserError:
        return None
    return floor.model_dump() if floor.is_of(platform.node(), str(host_facts()["cpu"])) else None


def floor_words(facts: dict[str, Any] | None) -> str:
    """What a report says of the floor that its manifest holds."""
    if facts is None:
        return NOT_CALIBRATED
    try:
        return Floor.model_validate(facts).words()
    except ValidationError:
        return NOT_CALIBRATED


def save_floor(floor: Floor, path: Path = FLOOR_FILE) -> None:
    """Write a calibration, whole or not at all. Raises UserError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, floor.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise cannot_be_written(path, error) from None
