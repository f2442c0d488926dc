"""The simulated engine between requests and streams: which timing model drives them, with which shape and fault."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.answers import Saying
from simulator.batching import BatchingModel, Sequence
from simulator.config import Config, Fault
from simulator.errors import BadRequestError
from simulator.http import Connection
from simulator.plan import CLOSE, CONTENT, ROLE, Shape, apply_fault, closing, fixed_plan, group_tokens, settle_shape
from simulator.prefix_cache import PrefixCache
from simulator.stream import Observer, Stream
from simulator.truth import RequestTruth, TruthLog
from simulator.wire import Format, Writer


@dataclass(frozen=True, slots=True)
class Job:
    """What a completion or chat request asks for, checked."""

    chat: bool
    stream: bool
    prompt_tokens: int
    output_tokens: int
    reason: str
    usage_asked: bool
    skip: int
    """Words by which the text is moved on."""
    prompt_ids: list[int]
    """Empty where no prefix cache wants them."""
    saying: Saying | None = None
    """What is said, where that follows from the prompt's text."""
    logprobs: dict[str, Any] | None = None
    """Of a whole answer's choice."""
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class Engine:
    """Turns jobs into streams. `at(due, call)` has the loop call `call(due)`; `arm(stream)` has it fire a stream."""

    def __init__(
        self, cfg: Config, log: TruthLog, observer: Observer, *,
        arm: Callable[[Stream], None], at: Callable[[int, Callable[[int], int]], None],
    ) -> None:  # fmt: skip
        self.cfg = cfg
        self.open_streams = 0
        self.kv_tokens = 0
        self._log = log
        self._observer = observer
        self._arm = arm
        self._at = at
        self._started = time.monotonic_ns()
        self._rng = random.Random(cfg.seed)
        self._np_rng = np.random.default_rng(cfg.seed)
        self._formats = {
            chat: Format(
                cfg.personality, chat=chat, model=cfg.model, text=cfg.answers.text, tell_cached=cfg.prefix_caching.tell
            )
            for chat in (False, True)
        }
        self._prefixes = PrefixCache(cfg.batching.block_tokens, cfg.prefix_caching.blocks)
        self._coalesce = 64 if cfg.coalesce == 1 and cfg.timing == "fixed" and cfg.fixed.tpot_ms == 0 else cfg.coalesce
        batching = cfg.batching.model_copy(update={"policy": cfg.batching.policy or cfg.personality})
        self.batching = BatchingModel(batching, self.factor) if cfg.timing == "batching" else None
        self._indexed = cfg.timing == "batching" and cfg.batching.prefix_caching
        self._stepping = False
        self._admitted = 0
        self._to_account: deque[Stream] = deque()

    def warm_up(self) -> None:
        """Build some streams for nothing: code that runs for the first time is slow."""
        for chat, fmt in self._formats.items():
            for number in range(20):
                shape = settle_shape(
                    self.cfg.stream, self.cfg.personality, chat=chat, usage_asked=True, others=0, rng=random.Random(0)
                )
                plan = fixed_plan(self.cfg.fixed, shape, self.cfg.personality, 8, 8, 0, 1.0, np.random.default_rng(0))
                writer = Writer(fmt, f"{number:032x}", int(time.time()), 8, "length")
                for kind, tokens in zip(plan.kind, plan.tokens, strict=True):
                    writer.special(kind, tokens, 0)
                writer.contents(0, [1])

    def factor(self, now: int) -> float:
        """Return what drift multiplies model times by."""
        seconds = (now - self._started) / 1e9 - self.cfg.drift_from_s
        return max(0.01, 1.0 + self.cfg.drift_per_minute * max(0.0, seconds) / 60)

    def reset_prefixes(self) -> None:
        """Forget the prompts that were seen, but for what running requests hold."""
        self._prefixes.clear()
        if self.batching is not None:
            self.batching.policy.reset_prefixes()

    def check(self, job: Job) -> None:
        """Raise BadRequestError for a job that can never run."""
        total = job.prompt_tokens + job.output_tokens
        if total > self.cfg.max_model_len:
            raise BadRequestError(
                f"This model's maximum context length is {self.cfg.max_model_len} tokens. However, you requested "
                f"{job.output_tokens} output tokens and your prompt contains {job.prompt_tokens} input tokens."
            )
        if self.batching is not None and not self.batching.fits(job.prompt_tokens, job.output_tokens):
            raise BadRequestError(f"{total} tokens are more than the KV cache holds")
        if self.batching is not None and self.batching.policy.full:
            raise BadRequestError("too many requests wait", 503)

    def start(self, conn: Connection, job: Job, truth: RequestTruth, head: bytes, fault: Fault | None) -> Stream:
        """Begin to answer. `head` is the response's head: written now, or with the first event."""
        cfg = self.cfg
        fmt = self._formats[job.chat]
        request_id = fmt.id_prefix + f"{self._rng.getrandbits(128):032x}"
        known = cfg.prefix_caching.enabled and not self._indexed
        cached = self._prefixes.take(job.prompt_ids) if known and job.prompt_ids else 0
        writer = Writer(
            fmt, request_id, int(time.time()), job.prompt_tokens, job.reason, skip=job.skip, cached=cached,
            tokens=None if job.saying is None else job.saying.tokens, logprobs=job.logprobs,
            prompt_logprobs=job.prompt_logprobs,
        )  # fmt: skip
        shape = settle_shape(
            cfg.stream, cfg.personality, chat=job.chat, usage_asked=job.usage_asked, others=self.open_streams,
            rng=self._rng,
        )  # fmt: skip
        stream = Stream(
            conn, writer, truth, self._log, self._observer, coalesce=self._coalesce, fault=fault, whole=not job.stream
        )
        if job.stream:
            last = group_tokens(job.output_tokens, shape.tokens_per_event)[-1]
            final, tail = closing(shape, cfg.personality)
            if final != CONTENT:
                writer.prepare(final, last, job.output_tokens - last)
            writer.prepare(tail, 0, job.output_tokens)
            if shape.role:
                writer.prepare(ROLE, 0, 0)
        self.open_streams += 1
        self.kv_tokens += job.prompt_tokens + job.output_tokens
        conn.stream = stream
        if job.stream and cfg.stream.early_head:
            conn.write(head)
            truth.t_head = time.monotonic_ns()
        else:
            stream.prefix = head
        if self.batching is not None:
            self._start_batched(self.batching, stream, job, truth, shape, cached)
            return stream
        gap = round(cfg.fixed.admit_gap_us * 1000)
        truth.t_start = self._admitted = max(truth.t_arrived, self._admitted + gap)
        factor = self.factor(truth.t_start)
        plan = fixed_plan(
            cfg.fixed, shape, cfg.personality, job.prompt_tokens - cached, job.output_tokens, truth.t_start, factor,
            self._np_rng,
        )  # fmt: skip
        plan = apply_fault(plan, fault)
        stream.due, stream.kind, stream.tokens = plan.due, plan.kind, plan.tokens
        self._arm(stream)
        return stream

    def ended(self, stream: Stream) -> None:
        """Take note that a stream has ended."""
        self.open_streams -= 1
        self.kv_tokens -= stream.truth.prompt_tokens + stream.truth.output_tokens
        self._to_account.append(stream)

    @property
    def behind(self) -> bool:
        """Whether ended streams wait for `account`."""
        return bool(self._to_account)

    def account(self, most: int = 1) -> None:
        """Tell the engine's metrics of streams that have ended: not urgent, so done between writes."""
        while self._to_account and most:
            self._to_account.popleft().account()
            most -= 1

    def sizes(self) -> tuple[int, int, int, float]:
        """Return running, waiting, swapped and the share of KV in use."""
        if self.batching is not None:
            model = self.batching
            policy = model.policy
            return len(policy.running), len(policy.waiting), len(policy.swapped), model.usage
        capacity = self.cfg.batching.kv_blocks * self.cfg.batching.block_tokens
        return self.open_streams, 0, 0, min(1.0, self.kv_tokens / capacity)

    def _start_batched(
        self, model: BatchingModel, stream: Stream, job: Job, truth: RequestTruth, shape: Shape, cached: int
    ) -> None:
        # By the time of reading: a step that has been made up must not get an earlier arrival afterwards.
        truth.t_start = truth.t_read
        sequence = Sequence(
            job.prompt_tokens, job.output_tokens, truth.t_read, owner=(stream, shape), computed=cached,
            ids=list(job.prompt_ids) if self._indexed else [],
        )  # fmt: skip
        stream.sequence = sequence
        model.add(sequence)
        if not self._stepping:
            self._stepping = True
            self._step(model, truth.t_read)

    def _step(self, model: BatchingModel, start: int) -> None:
        """Make up the step that begins at `start`, hand out its tokens, and call for the next one at its end."""
        step = model.step(start)
        for sequence in model.policy.expired:
            stream, _ = sequence.owner
            stream.put(start, CLOSE, 0)
            self._arm(stream)
        model.policy.expired.clear()
        if step is None and model.policy.waiting:
            start = max(start, model.policy.waiting[0].arrived)
            step = model.step(start)
        if step is None:
            self._stepping = False
            return
        self._observer.step(step, *self.sizes()[:3])
        for sequence, due in zip(step.outputs, step.due, strict=True):
            if not sequence.gone:
                self._deliver(sequence, due)
        # The next step is made up after this one's tokens are written: it is time-critical only for its own tokens.
        end = step.end
        after = max(end, step.due[-1] if step.due else end)

        def go_on(_: int) -> int:
            self._step(model, end)
            return 0

        self._at(after, go_on)

    def _deliver(self, sequence: Sequence, due: int) -> None:
        """Put one token into its stream: events of several tokens are filled first, except the first event."""
        stream, shape = sequence.owner
        last = sequence.generated >= sequence.output
        stream.waiting_tokens += 1
        if sequence.generated == 1 and self._indexed:
            stream.writer.tell_cached(sequence.cached)
        if sequence.generated > 1 and not last and stream.waiting_tokens < shape.tokens_per_event:
            return
        if sequence.generated == 1 and shape.role:
            stream.put(max(stream.truth.t_read, due - shape.role_lead_ns), ROLE, 0)
        final, tail = closing(shape, self.cfg.personality)
        stream.put(due, final if last else CONTENT, stream.waiting_tokens)
        stream.waiting_tokens = 0
        if last:
            stream.put(due, tail, 0)
        self._arm(stream)
