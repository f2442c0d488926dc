"""How long a streaming request may take."""

from __future__ import annotations

from pydantic import Field

from loadgen.validation import Strict


class Timeouts(Strict):
    """Limits in seconds. A request that passes one ends with an error and keeps what was timed."""

    connect_s: float = Field(default=10.0, gt=0)
    stall_s: float = Field(default=120.0, gt=0, description="longest silence, the wait for the first event included")
    total_s: float = Field(default=600.0, gt=0)
