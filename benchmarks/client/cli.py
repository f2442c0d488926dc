"""The command line: which peers, which loads, how often; then measure, show, keep."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.client import loads as known_loads
from benchmarks.client.campaign import Campaign
from benchmarks.client.document import BUSY_LOAD, Setting, document
from benchmarks.client.loads import BLAST, Load
from benchmarks.client.peers import PEERS
from benchmarks.client.results import Store
from benchmarks.client.table import rows, terminal_table
from benchmarks.simulated import cores
from loadgen.calibration.pinned_process import may_realtime
from loadgen.errors import UserError
from loadgen.files import write_result
from loadgen.machine import ROOT as CHECKOUT
from loadgen.machine import host_facts

RESULTS = CHECKOUT / ".bakeoff" / "bench-client"
DOCUMENT = CHECKOUT / "docs" / "client-benchmark.md"
REPEATS = 3


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.client",
        description="Bakeoff's load generator beside others, against a server whose timing is known. "
        "The first time it sets up the others, below .bakeoff/ (some minutes, 7 GB).",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=f"these tools: {', '.join(names)}")
    parser.add_argument("--streams", nargs="+", metavar="N", type=_load_name, help="these loads: numbers, or blast")
    parser.add_argument("--repeats", type=_positive, help=f"runs of each, the median counts [{REPEATS}]")
    parser.add_argument("--quick", action="store_true", help="64 streams and blast, once, fewer requests")
    parser.add_argument("--resume", action="store_true", help="keep runs of the same versions; make what is missing")
    parser.add_argument(
        "--self-only", action="store_true", help="Bakeoff alone, a few small requests: does it all work?"
    )
    parser.add_argument("--results", type=Path, help="folder of results [.bakeoff/bench-client/...]")
    parser.add_argument("--output", type=Path, help=f"write the document here [{DOCUMENT.name} in docs/, if complete]")
    args = parser.parse_args(argv)
    if args.self_only and (args.only or args.streams or args.quick):
        parser.error("--self-only says which tool and which loads: leave --only, --streams and --quick out")
    return args


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _load_name(text: str) -> str:
    if text != BLAST and not 1 <= _positive(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {BLAST} nor a number of streams up to 1000")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Measure. Returns 0, 1 when a run failed, 2 for wrong usage, 130 when interrupted."""
    args = options(argv)
    console = Console(highlight=False, soft_wrap=True)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(args, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace, console: Console) -> int:
    if not sys.platform.startswith("linux"):
        raise UserError("This benchmark needs Linux: the simulator runs on nothing else.")
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise UserError(f"{args.output}: there is no such folder")
    chosen = [peer for peer in PEERS if peer.name in (args.only or ([PEERS[0].name] if args.self_only else []))]
    chosen = chosen or list(PEERS)
    kind = "self" if args.self_only else "quick" if args.quick else "full"
    repeats = args.repeats or (REPEATS if kind == "full" else 1)
    pair = cores()
    realtime = pair[0] != pair[1] and may_realtime()
    store = Store(args.results or RESULTS / kind)
    campaign = Campaign(store, _basis(pair), pair, realtime, console)
    wanted = {peer.name: _loads(args, kind, peer.blast_rounds) for peer in chosen}
    for note in _notes(pair, realtime):
        console.print(f"Note: {note}.", style="yellow")
    began = time.monotonic()
    interrupted = not campaign.measure(chosen, wanted, repeats, resume=args.resume)
    minutes = (time.monotonic() - began) / 60
    results = [store.load(peer.name, None) for peer in PEERS]
    here = [result for result in results if campaign.same_machine(result)]
    shown = rows(here, {peer.name: peer.title for peer in PEERS})
    if shown:
        console.print(terminal_table(shown))
    console.print(f"{minutes:.1f} minutes. Results are in {store.folder}")
    if interrupted:
        console.print("Interrupted: what was measured is kept; --resume goes on with it.", style="yellow")
        return 130
    complete = kind == "full" and args.streams is None and repeats >= REPEATS
    if (complete or args.output) and shown:
        whole = args.only is None and not args.resume
        setting = Setting(
            date=datetime.date.today().isoformat(),
            host=campaign.machine,
            load_average=max(run.load_average for result in here for run in result.runs),
            command=_as_typed(args),
            minutes=minutes if whole else None,
            repeats=repeats,
            realtime=realtime,
        )
        write_result(args.output or DOCUMENT, document(here, PEERS, setting))
        console.print(f"Written to {args.output or DOCUMENT}")
    return 1 if campaign.failures else 0


def _loads(args: argparse.Namespace, kind: str, blast_rounds: int) -> list[Load]:
    if kind == "self":
        return list(known_loads.TINY)
    quick = kind == "quick"
    names = args.streams or (known_loads.QUICK if quick else known_loads.FULL)
    rounds = max(3, blast_rounds // 3) if quick else blast_rounds
    return [known_loads.blast(rounds) if name == BLAST else known_loads.paced(int(name), quick=quick) for name in names]


def _basis(pair: tuple[int, int]) -> dict[str, str]:
    """What makes figures comparable: the machine, and the cores in use."""
    facts = host_facts()
    kernel = re.match(r"[\d.]+", platform.release())
    return {
        "host": platform.node(),
        "cpu": str(facts["cpu"]),
        "cores": str(facts["cpus"]),
        "memory": f"{facts['memory_bytes'] / 2**30:.0f} GiB",
        "kernel": kernel.group() if kernel else platform.release(),
        "pinned": f"{pair[0]} and {pair[1]}",
    }


def _notes(pair: tuple[int, int], realtime: bool) -> list[str]:
    if pair[0] == pair[1]:
        return ["there is one core only, so server and tools share it: the figures are pessimistic"]
    busy = os.getloadavg()[0]
    notes = [] if realtime else ["SCHED_FIFO is not permitted (needs root), so other processes can disturb the server"]
    return notes + [f"the machine is busy (load average {busy:.1f}): figures are pessimistic"] * (busy > BUSY_LOAD)


def _as_typed(args: argparse.Namespace) -> str:
    """The command without what only says where files go."""
    words = [*(["--only", *args.only] if args.only else []), *(["--streams", *args.streams] if args.streams else [])]
    words += ["--repeats", str(args.repeats)] if args.repeats else []
    words += [f"--{name.replace('_', '-')}" for name in ("quick", "self_only", "resume") if getattr(args, name)]
    return f'make bench-client ARGS="{" ".join(words)}"' if words else "make bench-client"
