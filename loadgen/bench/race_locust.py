"""The Locust that a race drives: the stack's, or one of its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from loadgen.bench.order import Order
from loadgen.bench.running_stack import RunningStack
from loadgen.distributed.locust_client import LocustClient
from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError


@contextlib.contextmanager
def race_locust(
    order: Order, seats: Sequence[Seat], stack: RunningStack | None, run_id: str, console: Console
) -> Iterator[tuple[LocustClient, Path]]:
    """The Locust to drive, and the folder that its master writes runs to. Raises UserError when there is none."""
    if stack is not None:
        if order.runs_dir is None or order.runs_dir.resolve() == stack.runs_dir:
            yield stack.locust, stack.runs_dir
            return
        if any(seat.local_url for seat in seats):
            raise UserError(
                f"--runs-dir: the stack's Locust writes to {stack.runs_dir}, and only it reaches the engines in their "
                "own network. Leave --runs-dir out, or set BAKEOFF_RUNS_DIR and run `make down` and `make up`."
            )
        console.print(
            f"The stack's Locust writes to {stack.runs_dir}, so this run has a Locust of its own; the stack's web UI "
            "and dashboards will not show it.",
            soft_wrap=True,
        )
    where = order.own_runs_dir.resolve()
    # The run has no folder yet. Hidden, because what lists this folder means runs.
    log = where / f".{run_id}.locust.log"
    try:
        with OwnLocust(seats, where, log, order.workers) as locust:
            console.print(f"Locust: {locust.url}", highlight=False)
            try:
                yield locust, where
            finally:
                if (where / run_id).is_dir():
                    log.replace(_unused(where / run_id / "locust.log"))
    finally:
        log.unlink(missing_ok=True)  # of a run that never began: what was wrong has been said


def _unused(path: Path) -> Path:
    """`path`, or with a number where earlier sessions have left theirs."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())
