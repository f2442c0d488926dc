"""Recorded traffic that is replayed: when each request arrived, and how long its prompt and its answer were."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written, read_lines
from loadgen.message import say
from loadgen.scenario.shapes import MOST, TraceFacts

MAX_ARRIVALS = 50_000
"""A trace travels to every worker within its plan."""
MAX_BYTES, MAX_LINE = 64 << 20, 10_000
LATE_NS = 1_000_000_000
LATE_SHARE = 0.1
"""A first arrival later than both, the one as a share of what follows, is told."""
TRACE_FILE = "trace.jsonl"
"""Its name in a run folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in order. Lengths, and numbers of prompts, are given for all of them or for none."""

    arrivals_ns: tuple[int, ...]
    """After the start of the schedule."""
    prompt_tokens: tuple[int, ...] = ()
    output_tokens: tuple[int, ...] = ()
    prompts: tuple[int, ...] = ()
    """Which prompt each has: requests of one number have the same, or the shorter is the longer one's beginning."""

    @property
    def rate(self) -> float:
        """Mean arrivals a second, to three decimals."""
        span = self.arrivals_ns[-1] - self.arrivals_ns[0] or 1
        return min(max(round((len(self.arrivals_ns) - 1) * 1e9 / span, 3), 0.001), 100_000.0)

    @property
    def digest(self) -> str:
        """Beginning of the SHA-256 of the content, however the file is written."""
        content = dataclasses.astuple(self) if self.prompts else dataclasses.astuple(self)[:3]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]

    @property
    def note(self) -> str:
        """What is to be said of a trace that is cut from the middle of a longer one, or is one burst; else empty."""
        first, last = self.arrivals_ns[0], self.arrivals_ns[-1]
        if first > LATE_NS and first > LATE_SHARE * (last - first):
            seconds = f"{first / 1e9:g}"
            return say(
                "nothing is sent for {seconds} s, until its first arrival, unless with `rebase`", seconds=seconds
            )
        if first == last:
            return say("all its {count} arrivals are at one moment", count=len(self.arrivals_ns))
        return ""

    def measured(self, requests: int | None, warmup: int) -> int:
        """How many of its requests are measured, when `requests` are asked for. Raises UserError when it has none."""
        arrivals = len(self.arrivals_ns)
        if arrivals <= warmup:
            raise UserError(f"The trace has {arrivals} arrivals, and {warmup} are for warm-up: ask for fewer of these.")
        return min(requests or arrivals, arrivals - warmup)

    def facts(self, file: str, *, rebase: bool = False) -> TraceFacts:
        """What a scenario holds of it."""
        count = len(self.arrivals_ns)
        totals = [prompt + output for prompt, output in zip(self.prompt_tokens, self.output_tokens, strict=True)]
        return TraceFacts(
            file=file,
            rebase=rebase,
            digest=self.digest,
            requests=count,
            rate=self.rate,
            prompt_tokens=max(1, round(sum(self.prompt_tokens) / count)) if totals else None,
            output_tokens=max(1, round(sum(self.output_tokens) / count)) if totals else None,
            longest=max(totals, default=None),
        )


def read_trace(path: Path, *, rebase: bool = False) -> Trace:
    """Read a `.jsonl` file: objects whose `t` is seconds after the start, ascending.

    All may have `prompt_tokens` and `output_tokens` too, or none has; likewise `prompt`, the number of the prompt.
    `rebase`: the first arrival is the start.

    Raises:
        UserError: the file cannot be read, a line is wrong (with its number), or it is too long.
    """
    arrivals: list[int] = []
    lengths: list[tuple[int, int]] = []
    numbers: list[int] = []
    for number, line in read_lines(
        path, 'Give a trace of {"t": seconds} lines, plain or gzipped.', MAX_BYTES, MAX_LINE
    ):
        at, length, prompt = _arrival(line, f"{path}:{number}")
        if arrivals and at < arrivals[-1]:
            raise UserError(f"{path}:{number}: `t` must be seconds after the start, in ascending order")
        if arrivals and (length is None) != (not lengths):
            raise UserError(f"{path}:{number}: all lines give `prompt_tokens` and `output_tokens`, or none")
        if arrivals and (prompt is None) != (not numbers):
            raise UserError(f"{path}:{number}: all lines give `prompt`, or none")
        if len(arrivals) == MAX_ARRIVALS:
            raise UserError(f"{path}:{number}: a trace may have {MAX_ARRIVALS} arrivals: cut it into parts")
        arrivals.append(at)
        lengths += [length] if length is not None else []
        numbers += [prompt] if prompt is not None else []
    if len(arrivals) < 2:
        raise UserError(f"{path}: a trace needs two arrivals or more")
    if rebase:
        arrivals = [at - arrivals[0] for at in arrivals]
    prompts, outputs = tuple(prompt for prompt, _ in lengths), tuple(output for _, output in lengths)
    return Trace(tuple(arrivals), prompts, outputs, tuple(numbers))


def _arrival(line: str, where: str) -> tuple[int, tuple[int, int] | None, int | None]:
    """One line: ns after the start, (prompt tokens, output tokens) and the prompt's number where it gives them."""
    try:
        entry: Any = json.loads(line)
        at = float(entry["t"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise UserError(f'{where}: expected an object such as {{"t": 1.25}}') from None
    if not 0 <= at < 1e6:
        raise UserError(f"{where}: `t` must be seconds after the start, in ascending order")
    prompt = entry.get("prompt")
    if prompt is not None and not (type(prompt) is int and 0 <= prompt <= MOST):
        raise UserError(f"{where}: `prompt` must be a whole number from 0 on")
    given = [entry.get(key) for key in ("prompt_tokens", "output_tokens")]
    if given == [None, None]:
        return round(at * 1e9), None, prompt
    if not all(type(value) is int and 1 <= value <= MOST for value in given):
        raise UserError(f"{where}: `prompt_tokens` and `output_tokens` must both be whole numbers of 1 or more")
    return round(at * 1e9), (given[0], given[1]), prompt


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as `read_trace` reads it. Raises OSError."""
    lengths: list[dict[str, int]] = [{} for _ in trace.arrivals_ns]
    if trace.prompt_tokens:
        pairs = zip(trace.prompt_tokens, trace.output_tokens, strict=True)
        lengths = [{"prompt_tokens": prompt, "output_tokens": output} for prompt, output in pairs]
    for entry, number in zip(lengths, trace.prompts, strict=False):
        entry["prompt"] = number
    arrivals = zip(trace.arrivals_ns, lengths, strict=True)
    atomic_write(path, "".join(json.dumps({"t": at / 1e9, **rest}) + "\n" for at, rest in arrivals))


def keep_trace(facts: TraceFacts, folder: Path, made: Trace | None = None) -> Trace:
    """Put what a scenario replays into its run folder: there Locust's master finds it. Raises UserError.

    `made`: what its script became, where it has one in place of a file.
    """
    trace = made or read_trace(Path(facts.file), rebase=facts.rebase)
    if trace.digest != facts.digest:
        raise UserError(f"{facts.file} has changed since the scenario was read: start again.")
    try:
        write_trace(trace, folder / TRACE_FILE)
    except OSError as error:
        raise cannot_be_written(folder / TRACE_FILE, error) from None
    return trace
