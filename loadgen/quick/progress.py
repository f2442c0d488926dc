"""What `run` shows in a terminal while it measures."""

from __future__ import annotations

from loadgen.presentation.progress import StatusLine
from loadgen.traffic.block_state import BlockProgress


class QuickProgress(StatusLine):
    """Progress of `bakeoff run`."""

    def update(self, status: BlockProgress) -> None:
        """Show how far the block has come."""
        errors = sum(status.errors.values())
        self.line(
            f"{status.seconds:5.0f} s  "
            + (f"measured {status.measured}" if status.warmed_up else "warming up")
            + (f" of {status.wanted}" if status.wanted and status.warmed_up else "")
            + f"  in flight {status.in_flight}"
            + (f"  errors {errors} ({status.last_error})" if errors else "")
        )
