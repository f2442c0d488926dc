"""What a stream will write and when: pure functions from a configuration, a request and its arrival to due times."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.config import Config, Fault, FixedTiming, Jitter, StreamShape

# What one write carries; a write may carry several.
ROLE, CONTENT, FINISH, USAGE, DONE = 1, 2, 4, 8, 16
# How it went.
BLOCKED, FAULTED = 32, 64
# A fault in place of a write.
RESET, CLOSE, END = 128, 256, 512
KIND_NAMES = {
    ROLE: "role", CONTENT: "content", FINISH: "finish", USAGE: "usage", DONE: "done",
    BLOCKED: "blocked", FAULTED: "faulted",
}  # fmt: skip

NEVER = 1 << 62
"""Due time of an event that a stall keeps back for ever."""
NS_PER_MS = 1_000_000


@dataclass(slots=True)
class Plan:
    """Writes of one stream, in order: three lists of one length. Due times are ns and never decrease."""

    due: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shape:
    """What this one stream looks like: personality, request and load are settled."""

    role: bool
    role_lead_ns: int
    tokens_per_event: int
    usage: str
    """own, last, finish or none."""


PERSONALITY_SHAPES: dict[str, dict[str, Any]] = {
    "vllm": {"lead_ms": (0.03, 0.06), "usage": "own"},
    "ksana": {"lead_ms": (0.05, 0.15), "usage": "finish"},
}


def settle_shape(
    cfg: StreamShape, personality: str, *, chat: bool, usage_asked: bool, others: int, rng: random.Random
) -> Shape:
    """Settle one stream's shape; `others` is the number of other open streams."""
    own = PERSONALITY_SHAPES[personality]
    low, high = cfg.role_lead_ms if cfg.role_lead_ms is not None else own["lead_ms"]
    role = chat if cfg.role_event is None else cfg.role_event and chat
    usage = cfg.usage if cfg.usage != "auto" else (own["usage"] if usage_asked else "none")
    return Shape(
        role=role,
        role_lead_ns=round(rng.uniform(low, high) * NS_PER_MS) if role else 0,
        tokens_per_event=cfg.tokens_per_event + int(cfg.tokens_per_event_per_stream * others),
        usage=usage,
    )


def _displacements(jitter: Jitter, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return `count` displacements in ns. Exponential ones are one-sided (late), the others symmetric."""
    scale = jitter.scale_ms * NS_PER_MS
    match jitter.kind:
        case "uniform":
            return rng.uniform(-scale, scale, count)
        case "normal":
            return rng.normal(0.0, scale, count)
        case "exponential":
            return rng.exponential(scale, count)
        case _:
            return np.zeros(count)


def group_tokens(output: int, tokens_per_event: int) -> list[int]:
    """Return the tokens of each content event: one in the first, so that TTFT is a token's time, then full groups."""
    if tokens_per_event == 1:
        return [1] * output
    full, rest = divmod(output - 1, tokens_per_event)
    return [1, *[tokens_per_event] * full, *([rest] if rest else [])]


def content_due(
    cfg: FixedTiming, prompt: int, groups: list[int], anchor: int, factor: float, rng: np.random.Generator
) -> list[int]:
    """Return when each content event is due, in ns, never decreasing.

    Token j is ready at anchor + TTFT + j x TPOT (all times `factor`), an event when its last token is. Jitter moves the
    first token and with it all others (`ttft_jitter`), and each later event by itself (`tpot_jitter`).
    """
    ttft = cfg.ttft_ms * NS_PER_MS + cfg.prefill_us_per_token * 1000 * prompt
    tpot = cfg.tpot_ms * NS_PER_MS * factor
    first_ns = ttft * factor
    if cfg.ttft_jitter.kind != "none":
        first_ns = max(0.0, first_ns + float(_displacements(cfg.ttft_jitter, 1, rng)[0]))
    first = anchor + round(first_ns)
    if len(groups) == 1:
        return [first]
    if cfg.tpot_jitter.kind == "none":
        step = round(tpot)
        if groups[1] == 1 and groups[-1] == 1:
            return list(range(first, first + step * len(groups), step)) if step else [first] * len(groups)
        due, at = [], first - step * groups[0]
        for tokens in groups:
            at += step * tokens
            due.append(at)
        return due
    ready = np.cumsum(np.asarray(groups)) - groups[0]
    times = ready * tpot
    times[1:] += _displacements(cfg.tpot_jitter, len(groups) - 1, rng)
    times = np.maximum.accumulate(np.maximum(times, 0.0))
    result: list[int] = (first + np.rint(times).astype(np.int64)).tolist()
    return result


def fixed_plan(
    cfg: FixedTiming, shape: Shape, personality: str, prompt: int, output: int, anchor: int, factor: float,
    rng: np.random.Generator,
) -> Plan:  # fmt: skip
    """Return all writes of a stream whose timing is its own. `anchor` is when its request arrived."""
    groups = group_tokens(output, shape.tokens_per_event)
    due = content_due(cfg, prompt, groups, anchor, factor, rng)
    kind = [CONTENT] * len(groups)
    kind[-1], tail = closing(shape, personality)
    plan = Plan(due, kind, groups)
    plan.due.append(due[-1])
    plan.kind.append(tail)
    plan.tokens.append(0)
    if shape.role:
        plan.due.insert(0, max(anchor, due[0] - shape.role_lead_ns))
        plan.kind.insert(0, ROLE)
        plan.tokens.insert(0, 0)
    return plan


def closing(shape: Shape, personality: str) -> tuple[int, int]:
    """Return the kinds of the last content event and of the tail that follows it in a write of its own."""
    if shape.usage == "last":
        return CONTENT | FINISH | USAGE, DONE
    usage = USAGE if shape.usage in ("own", "finish") else 0
    # KsanaLLM always finishes with an event of its own.
    if personality == "ksana" or shape.usage == "finish":
        return CONTENT, FINISH | usage | DONE
    return CONTENT | FINISH, usage | DONE


class FaultedWrites:
    """Puts writes of a stream through one fault, one at a time; without a fault they pass unchanged.

    A spike holds one event back, and those due meanwhile with it; then the stream is on time again. A stall moves all
    that follows. The others end the stream.
    """

    __slots__ = ("_contents", "_fault", "_floor", "_over")

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._contents = 0
        self._floor = 0
        self._over = False

    def put(self, due: int, kind: int, tokens: int) -> list[tuple[int, int, int]]:
        """Return what becomes of one write: itself, itself later, a reset or a close in its place, or nothing."""
        fault = self._fault
        if fault is None or fault.kind in ("http", "slow"):
            return [(due, kind, tokens)]
        hit = self._contents >= fault.after and (kind & ROLE == 0 or fault.after == 0)
        if kind & CONTENT:
            self._contents += 1
        if self._over or not hit:
            return [] if self._over else [(due, kind, tokens)]
        if fault.kind == "spike":
            if not self._floor:
                self._floor = due + round((fault.ms or 0.0) * NS_PER_MS)
            return [(self._floor, kind | FAULTED, tokens)] if due < self._floor else [(due, kind, tokens)]
        if fault.kind == "stall":
            if fault.ms is None:
                self._over = True
                return [(NEVER, kind, tokens)]
            return [(due + round(fault.ms * NS_PER_MS), kind | FAULTED, tokens)]
        self._over = True
        return [(due, RESET if fault.kind == "reset" else END if fault.clean else CLOSE, 0)]


def apply_fault(plan: Plan, fault: Fault | None) -> Plan:
    """Return a plan with a fault put into it."""
    if fault is None or fault.kind in ("http", "slow"):
        return plan
    writes = FaultedWrites(fault)
    changed = Plan()
    for due, kind, tokens in zip(plan.due, plan.kind, plan.tokens, strict=True):
        for new_due, new_kind, new_tokens in writes.put(due, kind, tokens):
            changed.due.append(new_due)
            changed.kind.append(new_kind)
            changed.tokens.append(new_tokens)
    return changed


class FaultPicker:
    """Says which fault hits a request: by its number, the seed, the time since the start, and the streams open."""

    def __init__(self, cfg: Config) -> None:
        self._faults = cfg.faults
        self._rng = random.Random(cfg.seed + 1)

    def pick(self, number: int, since_start_s: float, open_streams: int = 0) -> Fault | None:
        """Return the first fault whose rule the `number`-th request (from 1) meets, or None."""
        for fault in self._faults:
            if since_start_s < fault.from_s or (fault.until_s is not None and since_start_s >= fault.until_s):
                continue
            if fault.over is not None and open_streams < fault.over:
                continue
            if fault.every is not None and number % fault.every:
                continue
            if fault.share is not None and self._rng.random() >= fault.share:
                continue
            return fault
        return None
