"""The configuration: typed, strict, from a YAML file and `KEY=VALUE` settings. Unknown keys are refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from simulator.errors import SimulatorError

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
FaultKind = Literal["spike", "stall", "reset", "http", "truncate", "slow"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Jitter(_Strict):
    """A random displacement in ms. `scale_ms` is the half-width, the standard deviation, or the mean, by kind."""

    kind: Literal["none", "uniform", "normal", "exponential"] = "none"
    scale_ms: NonNegative = 0.0


class FixedTiming(_Strict):
    """Each request is alone: event times follow from its own arrival and nothing else."""

    ttft_ms: NonNegative = 50.0
    tpot_ms: NonNegative = 10.0
    prefill_us_per_token: NonNegative = 0.0
    ttft_jitter: Jitter = Jitter()
    tpot_jitter: Jitter = Jitter()
    admit_gap_us: NonNegative = Field(
        default=35.0,
        description="requests that arrive together start so far apart, as one front end would take them: a wave of "
        "256 spreads over 9 ms in place of asking for 256 writes at one instant",
    )


class BatchingTiming(_Strict):
    """Continuous batching. A step takes base + prefill tokens, decoding sequences, KV tokens read and blocks swapped,
    each times its own rate."""

    policy: Literal["vllm", "ksana"] | None = Field(
        default=None, description="whose scheduler; None: the personality's, vLLM's where there is none"
    )
    base_ms: NonNegative = 8.0
    prefill_us_per_token: NonNegative = 50.0
    decode_us_per_sequence: NonNegative = 50.0
    kv_us_per_token: NonNegative = 0.01
    swap_us_per_block: NonNegative = 20.0
    max_num_seqs: Positive = 256
    max_num_batched_tokens: Positive = 2048
    chunked_prefill: bool = True
    block_tokens: Positive = 16
    kv_blocks: Positive = 8192
    prefix_caching: bool = Field(default=False, description="the scheduler's own index of blocks finds prefixes again")
    split_fuse_tokens: Annotated[int, Field(ge=0)] = Field(
        default=0, description="ksana: tokens of each prompt in a step, 0: all"
    )
    preemption: Literal["recompute", "swap"] = Field(default="swap", description="ksana; vllm always recomputes")
    swap_blocks: Annotated[int, Field(ge=0)] = 4096
    waiting_limit: Positive | None = Field(default=None, description="requests that may wait; None: ksana 1200")
    time_limit_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="time that a request may be in the engine; None: ksana 600"
    )
    plan_ms: NonNegative = Field(default=0.0, description="time that planning a step takes")
    plan_ahead: bool = Field(default=False, description="plan while the step before is computed, so that it is hidden")
    emit_gap_us: NonNegative = Field(
        default=25.0, description="time between two events of one step: a real engine's front end writes them in turn"
    )

    @model_validator(mode="after")
    def _takes_time(self) -> BatchingTiming:
        if self.base_ms == 0 and self.prefill_us_per_token == 0:
            raise ValueError("a step must take time: set base_ms or prefill_us_per_token above 0")
        return self


class StreamShape(_Strict):
    """What a stream looks like. None: as the personality has it."""

    tokens_per_event: Positive = 1
    tokens_per_event_per_stream: NonNegative = Field(
        default=0.0, description="added to tokens_per_event for each other open stream, rounded down"
    )
    role_event: bool | None = None
    role_lead_ms: tuple[NonNegative, NonNegative] | None = Field(
        default=None, description="the role event precedes the first content by a time drawn evenly from this range"
    )
    usage: Literal["auto", "own", "last", "finish", "none"] = Field(
        default="auto",
        description="own: an event with empty choices (ksana: as finish); finish: an event with an empty delta and "
        "finish_reason; last: the last content event; auto: the personality's place, if stream_options.include_usage "
        "asks for it",
    )
    early_head: bool = True
    eos_after: Positive | None = Field(
        default=None, description="end with finish_reason stop after so many tokens, unless ignore_eos or min_tokens"
    )

    @model_validator(mode="after")
    def _ordered(self) -> StreamShape:
        if self.role_lead_ms is not None and self.role_lead_ms[0] > self.role_lead_ms[1]:
            raise ValueError("role_lead_ms must be [low, high]")
        return self


class Tokens(_Strict):
    """How prompts are counted."""

    bos: Annotated[int, Field(ge=0)] = 1
    template: Annotated[int, Field(ge=0)] = Field(default=3, description="tokens that open the answer in a chat")
    word_letters: Positive | None = Field(
        default=None, description="a word is a token for each so many of its letters; None: always one"
    )


class Answers(_Strict):
    """What is answered, and how that strays from what was asked."""

    text: Literal["words", "bangs", "prompted"] = Field(
        default="words",
        description="bangs: the same token over and over; prompted: by the prompt, with sums, copies, codes and JSON",
    )
    first_word: Annotated[int, Field(ge=0, lt=1000)] = Field(
        default=0, description="moves the text on by so many words, as other weights would"
    )
    most_tokens: Positive | None = Field(default=None, description="ends any answer after so many tokens")
    sampling: bool = Field(default=False, description="temperature, seed, top_p and stop change the text")
    logprobs: bool = Field(default=True, description="prompted: log probabilities are given to who asks for them")
    wrong_sums: bool = Field(default=False, description="prompted: sums are one too high")
    swap_every: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="prompted: one token in so many is another..."
    )
    swap_over: Annotated[int, Field(ge=0)] = Field(
        default=1, description="...in an answer that begins while so many others are under way"
    )
    rounding_nats: NonNegative = Field(default=0.0, description="prompted: logits are off by this deviation")
    rounding_seed: int = Field(default=0, description="other arithmetic, which rounds otherwise")
    known_fields_only: bool = Field(default=False, description="refuse a request with a field that is not known")


class PrefixCaching(_Strict):
    """A cache of prompts: tokens found there take no prefill."""

    enabled: bool = False
    blocks: Positive = 8192
    tell: bool = Field(default=False, description="tell cached tokens in usage.prompt_tokens_details")


class Fault(_Strict):
    """One fault and whom it hits. `after` counts content events that are still written normally."""

    kind: FaultKind
    after: Annotated[int, Field(ge=0)] = 0
    ms: NonNegative | None = Field(default=None, description="spike, stall: how long; a stall without it never ends")
    status: Annotated[int, Field(ge=400, le=599)] = 500
    bytes: Positive = Field(default=16, description="slow: bytes in one write")
    gap_ms: NonNegative = Field(default=2.0, description="slow: time between two writes")
    clean: bool = Field(default=False, description="truncate: end the chunked body properly, but without the rest")
    every: Positive | None = Field(default=None, description="hits each so-many-th request")
    share: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, description="hits this share, seeded")
    over: Positive | None = Field(default=None, description="hits one that finds so many streams open already")
    from_s: NonNegative = 0.0
    until_s: NonNegative | None = None

    @model_validator(mode="after")
    def _complete(self) -> Fault:
        if self.kind == "spike" and not self.ms:
            raise ValueError("a spike needs its length, such as spike:after=3,ms=200")
        return self


class Config(_Strict):
    """All of the simulator."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8100
    model: Annotated[str, Field(min_length=1)] = "simulated"
    max_model_len: Positive = 131072
    personality: Literal["vllm", "ksana"] = "vllm"
    seed: Annotated[int, Field(ge=0)] = 0
    timing: Literal["fixed", "batching"] = "fixed"
    fixed: FixedTiming = FixedTiming()
    batching: BatchingTiming = BatchingTiming()
    stream: StreamShape = StreamShape()
    tokens: Tokens = Tokens()
    answers: Answers = Answers()
    prefix_caching: PrefixCaching = PrefixCaching()
    faults: tuple[Fault, ...] = ()
    drift_per_minute: float = Field(default=0.0, description="0.01: all model times grow by 1% of the first a minute")
    drift_from_s: NonNegative = Field(default=0.0, description="seconds after the start from which they grow")
    lag_limit_ms: Annotated[float, Field(gt=0)] = 0.3
    cpu: Annotated[int, Field(ge=0)] | None = None
    realtime: bool = False
    spin_us: NonNegative = 150.0
    coalesce: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="most due events of one stream in one write (64 by itself when TPOT is 0)"
    )
    truth: Path | None = None
    truth_max_events: Positive = 20_000_000
    metrics_export_url: str | None = None
    metrics_export_interval_ms: Annotated[int, Field(ge=50)] = 1000

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.metrics_export_url is not None:
            if self.personality != "ksana":
                raise ValueError("metrics_export_url: only the ksana personality pushes metrics")
            if not re.match(r"http://[^/\s]+", self.metrics_export_url):
                raise ValueError("metrics_export_url must be an http:// URL, such as http://127.0.0.1:4318/v1/metrics")
        return self


SECTIONS = (Config, FixedTiming, BatchingTiming, StreamShape, Tokens, Answers, PrefixCaching, Fault, Jitter)


def _explain(error: ValidationError, source: str) -> str:
    """One line for the first thing wrong, with a hint for a misspelt key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = {key for section in SECTIONS for key in section.model_fields}
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        message = "unknown key" + (f", did you mean {close[0]}?" if close else "")
    return f"{source}: {where + ': ' if where else ''}{message}"


def parse_fault(text: str) -> Fault:
    """Read `KIND[:key=value,...]`, such as `reset:after=3,every=10`. Raises SimulatorError."""
    kind, _, rest = text.partition(":")
    values: dict[str, Any] = {"kind": kind.strip()}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        values[key] = value if equals else True
    try:
        return Fault.model_validate(values)
    except ValidationError as error:
        raise SimulatorError(_explain(error, f"fault {text!r}")) from None


def _merge(into: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        nested = into.get(part)
        if not isinstance(nested, dict):
            nested = into[part] = {}
        into = nested
    into[path[-1]] = value


def load_config(path: Path | None, settings: Iterable[tuple[str, Any]] = ()) -> Config:
    """Read a YAML file (or nothing) and lay settings with dotted keys over it.

    Raises SimulatorError: the file cannot be read, is not YAML, or has an unknown key or a bad value.
    """
    values: dict[str, Any] = {}
    source = "settings" if path is None else str(path)
    if path is not None:
        try:
            loaded = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SimulatorError(f"{path}: cannot be read ({error.strerror})") from None
        except (YAMLError, UnicodeDecodeError) as error:
            raise SimulatorError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise SimulatorError(f"{path}: must hold keys and values")
        values = loaded or {}
    for key, value in settings:
        _merge(values, key.split("."), value)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise SimulatorError(_explain(error, source)) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `dotted.key=VALUE`, VALUE as YAML. Raises SimulatorError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SimulatorError(f"--set {text!r}: must be KEY=VALUE, such as batching.base_ms=5")
    try:
        return key, YAML(typ="safe").load(value)
    except YAMLError as error:
        raise SimulatorError(f"--set {text!r}: {' '.join(str(error).split())}") from None
