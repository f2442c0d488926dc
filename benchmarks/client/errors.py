"""How far a tool's own figures are from the truth.

Pure: what a tool wrote of its requests, and the simulator's truth log, into errors. It shares no code with any tool's
timing, Bakeoff's included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.client.loads import Load
from loadgen.errors import UserError

CONTENT, BLOCKED = 2, 32
"""Bits of the truth log's `kind`: docs/simulator.md."""
SLACK_S = 0.002
"""What mapping a tool's clock to CLOCK_MONOTONIC may be off by."""
Floats = npt.NDArray[np.float64]
Truth = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One successful request in a tool's own figures.

    `tpot_s` is the tool's figure for (last token - first token) / (tokens - 1), whatever it calls it.
    """

    t_send: float
    """Seconds of CLOCK_MONOTONIC."""
    ttft_s: float
    tpot_s: float
    request_id: str = ""
    """Its `X-Request-Id`; empty where the tool sends or keeps none."""
    first: bool | None = None
    """Whether it is its stream's first; None where the tool does not tell streams apart."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Tool minus truth, one value a request; each stream's first request is left out."""

    ttft_ms: Floats
    tpot_ms: Floats
    true_tpot_ms: Floats

    @property
    def tpot_percent(self) -> Floats:
        """TPOT's error as a share of the true one, in %. Empty where the server wrote all tokens at once."""
        if not (self.true_tpot_ms > 0).all():
            return np.zeros(0)
        return np.asarray(100 * self.tpot_ms / self.true_tpot_ms, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Per completed request of the truth log, in order of arrival: seconds of CLOCK_MONOTONIC, and counts."""

    ids: list[str]
    arrived: Floats
    first: Floats
    last: Floats
    tokens: npt.NDArray[np.int64]


def compare(measured: Sequence[Measured], truth: Truth, load: Load) -> Errors:
    """Compare each request with its truth.

    Requests are paired by their ids where the tool kept them, else in order of sending: neighbours in that order have
    nearly the same true timing, so a wrong pair among them changes nothing that matters. Each stream's first request
    is left out; where the tool does not tell streams apart, the first `load.streams` requests that it sent.

    Raises:
        UserError: a request is on one side only, was not answered in full, or cannot be the one it is paired with.
    """
    answers = _answers(truth)
    own = sorted(measured, key=lambda one: one.t_send)
    if not own:
        raise UserError("it has figures of no request")
    order = _pair(own, answers, load.streams)
    judged = np.array(
        [number >= load.streams if one.first is None else not one.first for number, one in enumerate(own)]
    )
    if not judged.any():
        raise UserError("it has figures of first requests only")
    if other := set(answers.tokens[order][judged].tolist()) - {load.tokens}:
        raise UserError(f"it asked for answers of {sorted(other)} tokens where {load.tokens} were wanted")
    sent = np.array([one.t_send for one in own])
    if (early := answers.arrived[order] - sent).min() < -SLACK_S:
        raise UserError(f"a request arrived {-1e3 * early.min():.1f} ms before it was sent, by its own clock")
    true_ttft = (answers.first - answers.arrived)[order]
    true_tpot = ((answers.last - answers.first) / np.maximum(1, answers.tokens - 1))[order]
    ttft = np.array([one.ttft_s for one in own]) - true_ttft
    tpot = np.array([one.tpot_s for one in own]) - true_tpot
    if load.blast:
        true_tpot = np.zeros_like(true_tpot)
    return Errors(1e3 * ttft[judged], 1e3 * tpot[judged], 1e3 * true_tpot[judged])


def _pair(own: Sequence[Measured], answers: _Answers, streams: int) -> npt.NDArray[np.int64]:
    """For each request, sorted by sending, the number of its answer."""
    identified = all(one.request_id for one in own)
    surplus = len(answers.ids) - len(own)
    # A tool that stops at a count leaves one request a stream behind, whose answer may have been written already.
    if surplus < 0 or surplus > (streams if identified else 0):
        raise UserError(f"it has figures of {len(own)} requests, and the server answered {len(answers.ids)}")
    if not identified:
        return np.arange(len(own))
    numbers = {name: number for number, name in enumerate(answers.ids)}
    if missing := [one.request_id for one in own if one.request_id not in numbers]:
        raise UserError(f"the server answered none with the id of {len(missing)} requests, such as {missing[0]}")
    order = np.array([numbers[one.request_id] for one in own], dtype=np.int64)
    if len(set(order.tolist())) != len(own):
        raise UserError("two of its requests have the same id")
    return order


def _answers(truth: Truth) -> _Answers:
    """Times of the answers that were written to their end.

    A write lies between the clock readings on both sides of its `send`; one that the client's full buffer held back
    had begun by the first.
    """
    whole = np.flatnonzero(truth["request_outcome"] == "ok")
    whole = whole[np.argsort(truth["request_t_arrived"][whole], kind="stable")]
    content = np.flatnonzero((truth["event_kind"] & CONTENT) != 0)
    owner = truth["event_request"][content]
    blocked = (truth["event_kind"][content] & BLOCKED) != 0
    before, after = truth["event_before"][content], truth["event_after"][content]
    middle = np.where(blocked, before, (before + after) / 2) / 1e9
    size = len(truth["request_id"])
    first, last = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(first, owner, middle)
    np.maximum.at(last, owner, middle)
    return _Answers(
        [str(name) for name in truth["request_id"][whole]],
        truth["request_t_arrived"][whole] / 1e9,
        first[whole],
        last[whole],
        np.asarray(truth["request_tokens_written"][whole], dtype=np.int64),
    )
