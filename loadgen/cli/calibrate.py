"""`bakeoff calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.console import open_console
from loadgen.errors import NOT_WHOLE
from loadgen.files import check_writable


def calibrate(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer loads and requests: half a minute.")] = False,
    streams: Annotated[
        list[int] | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Streams at once (repeatable; default 1, 16, 64, 256)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write it (default: .bakeoff/calibration.json, which reports quote)."
        ),
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="On a busy machine: SCHED_FIFO for the client too (needs root).")
    ] = False,
) -> None:
    """Measure the load generator's own error on this machine.

    Against a simulator whose timing is known. Exit code: 0 the simulator kept its schedule at every load, 1 not so,
    2 an error, 130 interrupted.
    """
    from loadgen.calibration.calibrate import calibrate as run_calibration
    from loadgen.client.floor import FLOOR_FILE

    check_writable(output)
    floor = run_calibration(
        quick=quick, streams=streams, output=output or FLOOR_FILE, console=open_console(), isolate=isolate
    )
    raise typer.Exit(0 if all(step.valid for step in floor.steps) else NOT_WHOLE)
