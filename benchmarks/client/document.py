"""The document: the tables in Markdown, with all that is needed to read and to repeat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.client.loads import BLAST
from benchmarks.client.peer import Peer
from benchmarks.client.results import PeerResult
from benchmarks.client.table import HEADINGS, LATE, Row, rows

METHOD = """\
## How it was measured

The server is Bakeoff's simulator (docs/simulator.md), a process of its own on a core of its own. At 1 to 256 streams
it answers each request with its first token after 50 ms and 127 more, 10 ms apart, one token an event. In blast it
writes an answer of 1,024 events in one go, and 16 streams ask for the next one as soon as they have it. It logs when
the kernel received each request and the clock on both sides of each `send`; that log is the truth. Every tool gets
one core, all of it (one worker process where it has workers), `/v1/completions` with streaming and usage, prompts of
32 tokens and a closed loop: so many streams, each sending its next request when it has its answer.

- **TTFT and TPOT errors** are sizes: each request's figure as the tool itself wrote it against the truth of that same
  request, p50 and p99 over requests. Every tool here writes figures of single requests, so no aggregates are compared.
  TPOT is (last token - first token) / (tokens - 1), whatever the tool calls it. "TPOT mean" is the error of the mean,
  with its sign. In blast there is no true TPOT. The first request of each stream is left out. Requests are paired with
  their truth by `X-Request-Id` where the tool sends one, else in order of sending.
- **CPU per event** is user and system time of the tool's whole process tree, read from the kernel's CPU clocks every
  50 ms, between the first reading after all streams had sent a request and the last one before the first stream ended
  for good, over the events that the server wrote in between. Start and evaluation are not in it.
- **Memory** is the highest sum of resident memory over the tool's processes at any of these readings, start and
  evaluation included; pages that its processes share count for each.
- {repeats} Tools take turns, so that a busy spell hits all of them.
"""
CAVEATS = """\
## What to keep in mind

- Loopback, one client core, a server that does not slow down: this shows what a tool adds, not how it copes with a
  network. inference-perf, GuideLLM and Bakeoff's stack can spread over cores: then errors come at a higher load, and
  the CPU per event stays.
- A closed loop of equal streams moves in step: all streams' answers begin, and end, at nearly the same time. That is
  the hardest case for a reader that stamps when it gets round to reading, and it is also what engines that batch do.
- Bakeoff's warm-up parts its streams, as `bakeoff run` always does; "in step" is Bakeoff without it. Where its core is
  so busy that two events of a stream wait unread together, they carry one arrival time (docs/methodology.md).
- The Locust and SDK users are our own few lines (`benchmarks/client/programs/`), with JSON decoded for every event.
  `iter_lines` waits for 1 KB, so its TTFT is not a matter of load.
- The p99 of a single stream is over few requests.
"""


BUSY_LOAD = 0.5
REALTIME = "with SCHED_FIFO, and once more without where it missed its schedule"
ORDINARY = "at ordinary priority"
SHOWN_LOAD = "64"
"""Whose command is shown, if it was measured."""


@dataclass(frozen=True)
class Setting:
    """When and on what it was measured."""

    date: str
    host: Mapping[str, str]
    """`cpu`, `cores`, `kernel`, `memory`."""
    load_average: float
    """The highest before any tool's runs."""
    command: str
    minutes: float | None
    """How long the whole took; None where it was put together from several runs."""
    repeats: int
    realtime: bool


def document(results: Sequence[PeerResult], peers: Sequence[Peer], setting: Setting) -> str:
    """The whole Markdown text."""
    shown = rows(results, {peer.name: peer.title for peer in peers})
    parts = [_head(setting), *(_table(load, shown) for load in dict.fromkeys(row.load for row in shown))]
    often = (
        f"Each figure is the median of {setting.repeats} runs." if setting.repeats > 1 else "Each figure is of one run."
    )
    parts += [_notes(results, shown, peers), METHOD.format(repeats=often), _tools(results, peers), CAVEATS]
    return "\n".join(part for part in parts if part)


def _head(setting: Setting) -> str:
    host = setting.host
    took = f", {setting.minutes:.0f} minutes" if setting.minutes is not None else ""
    busy = ""
    if setting.load_average > BUSY_LOAD:
        busy = (
            "That is a busy machine: other work took part of both cores, and the figures of all tools are pessimistic."
        )
    text = f"""\
# The load generator beside others

Made by `{setting.command}` on {setting.date}{took}; do not edit.
How far off each tool's own figures are against a server whose timing is known, and what the tool costs: columns of
TTFT and TPOT are errors. Server and tool had a core each.

Machine: {host["cpu"]}, {host["cores"]} cores, {host["memory"]}, Linux {host["kernel"]}. Load average before
the runs: {setting.load_average:.1f} at most. The server ran {REALTIME if setting.realtime else ORDINARY}.
{busy}
"""
    return text.rstrip("\n") + "\n"


def _table(load: str, shown: Sequence[Row]) -> str:
    blast = load == BLAST
    title = "Blast: 16 streams of 1,024 tokens, written at once" if blast else f"{load} stream{'s' * (load != '1')}"
    units = {"TTFT": " ms", "TPOT": " %"}
    headings = ["tool", *(heading + units.get(heading[:4], "") for heading in HEADINGS)]
    if blast:
        headings.append("events per core-second")
    lines = [f"## {title}\n", _line(headings), _line(["---", *["---:"] * (len(headings) - 1)])]
    for row in shown:
        if row.load == load:
            lines.append(_line([row.peer, *row.cells, *[row.events_per_core_second] * blast]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(results: Sequence[PeerResult], shown: Sequence[Row], peers: Sequence[Peer]) -> str:
    notes = []
    if any(row.peer.endswith(LATE) for row in shown):
        notes.append(
            f"{LATE} In most of these runs more than 1% of the server's writes were over 0.3 ms late. Its real times "
            "are what is compared with, so errors hold; but its events came less evenly than told."
        )
    by_name = {result.peer: result for result in results}
    for peer in peers:
        result = by_name.get(peer.name)
        if result is not None and result.skipped:
            notes.append(f"{peer.title} was not measured: {_first_line(result.skipped)}")
    notes += [f"{row.peer} at load {row.load}: {_first_line(row.note)}" for row in shown if row.note]
    return "".join(f"{note}\n\n" for note in notes).rstrip("\n") + "\n" * bool(notes)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].rstrip(":")


def _tools(results: Sequence[PeerResult], peers: Sequence[Peer]) -> str:
    lines = ["## The tools\n"]
    by_name = {result.peer: result for result in results}
    for peer in peers:
        result = by_name.get(peer.name)
        if result is None or not result.runs:
            continue
        versions = ", ".join(
            f"{name} {result.basis[name]}" for name in ("Python", *peer.packages) if name in result.basis
        )
        commit = f", commit {result.basis['commit']}" if "commit" in result.basis else ""
        lines.append(f"**{peer.title}**: {peer.what}. {versions}{commit}. Measured {result.measured_at[:10]}.\n")
        commands = {run.load: run.command for run in result.runs if run.command}
        if commands:
            lines.append(f"```\n{commands.get(SHOWN_LOAD) or next(iter(commands.values()))}\n```\n")
    return "\n".join(lines)
