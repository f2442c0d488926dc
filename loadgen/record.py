"""The request record: all that was measured of one request; and what of a server's `usage` may stand in it."""

from __future__ import annotations

import dataclasses
import enum
import re
from array import array
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from typing import Any, Literal, Self

Phase = Literal["warmup", "measure", "drain"]
TokenSource = Literal["usage", "tokenizer"]
Clock = Literal["kernel", "user"]


class TpotBasis(enum.StrEnum):
    """Over how many tokens TPOT is taken, or why a stream carries none. They are those behind the first event."""

    EVENTS = "events"
    """Every event is one token."""
    USAGE = "usage"
    """The server counted, in the first event, how many tokens that held."""
    TOKENIZER = "tokenizer"
    """The model's tokenizer counted the first event's text."""
    FIRST_EVENT = "first_event"
    """The first event is so short, or events hold so few tokens, that TPOT is off by 2% at most."""

    ONE_TOKEN = "one_token"  # noqa: S105
    ONE_EVENT = "one_event"
    ONE_ARRIVAL = "one_arrival"
    CLUMPS = "clumps"
    """Several events arrive together, again and again, and not because this process read them late."""
    TOKENS_PER_EVENT = "tokens_per_event"
    """More tokens than events, and nobody knows how many were in the first."""
    MORE_EVENTS = "more_events"
    """Fewer tokens than events: the server does not count all that it sends."""


MAX_REQUEST_ID_CHARS = 120
MAX_DETAIL_CHARS = 500
MAX_TOKENS = 2**31 - 1
"""Records store counts in 32 bits; no real count comes near."""
_not_id = re.compile(r"[^A-Za-z0-9_.-]")


class ErrorKind(enum.StrEnum):
    """Why a request failed, as records have it. A status other than 2xx is a kind too: see `http_kind`."""

    ABORTED = "aborted"
    """The load generator itself ended it (the block was over, or Ctrl-C)."""
    CONNECT = "connect"
    CONNECTION_CUT = "connection_cut"
    STALL_TIMEOUT = "stall_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    BAD_RESPONSE = "bad_response"
    """What came is no HTTP/1.1 response, or no event stream."""
    BAD_EVENT = "bad_event"
    UNKNOWN_EVENT = "unknown_event"
    """JSON that is neither a chunk of an answer, nor an error of a known shape, nor a sign of life."""
    STREAM_ERROR = "stream_error"
    """The server reported an error in mid-stream."""
    CHOICE_ERROR = "choice_error"
    """The same, inside a choice."""
    FINISH_ABORT = "finish_abort"
    """The server gave the answer up, as its finish reason says; likewise the next two."""
    FINISH_ERROR = "finish_error"
    CONTENT_FILTER = "content_filter"
    NO_FINISH = "no_finish"
    """The end was marked, but no finish reason came before it."""
    TRUNCATED = "truncated"
    NO_CONTENT = "no_content"
    NO_USAGE = "no_usage"
    ZERO_USAGE = "zero_usage"
    """Text came, and the server counted no token of it."""
    PROMPT_TOKENS = "prompt_tokens"
    """Another length than asked for; likewise the output's."""
    OUTPUT_TOKENS = "output_tokens"


def http_kind(status: int | None) -> str:
    """The error kind of an answer whose status says that it is no success."""
    return f"http_{status}"


REJECTIONS = {http_kind(status): status for status in (429, 503)}
"""Error kinds of requests that an engine turned away because it had enough to do, and their status."""


TOGETHER_NS = 1_000_000
TOGETHER_SHARE = 0.1
"""Events arrive together that are less than both apart; the share is of the mean gap."""


def together_ns(offsets: Sequence[int]) -> int:
    """Less than so many ns apart, two of an answer's events (of two or more) arrive together."""
    return int(min(TOGETHER_NS, TOGETHER_SHARE * (offsets[-1] - offsets[0]) / (len(offsets) - 1)))


def int64s(values: Iterable[int] = ()) -> array[int]:
    """Nanoseconds of each event: a quarter of a list's memory, and a load generator holds thousands of records."""
    return array("q", values)


@dataclasses.dataclass(slots=True)
class RequestRecord:
    """One request, as the worker that owned its socket saw it.

    All `t_*` fields are nanoseconds of that worker's monotonic clock; `t + wall_offset_ns` is nanoseconds
    since the Unix epoch, which aligns workers and Prometheus. `None` means that it never happened.
    """

    run_id: str
    block: str
    engine: str
    model: str
    cell: str
    api: str
    worker: str
    user: int
    """Number of the simulated user, unique within its worker and block."""
    index: int
    """Position of this request in its user's sequence, from 0."""
    t_intended: int
    t_send: int
    t_done: int
    wall_offset_ns: int
    prompt_tokens_wanted: int
    output_tokens_wanted: int
    t_first: int | None = None
    t_last: int | None = None
    connect_ns: int = 0
    """Cost of opening the connection that this request used first; 0 when it was reused."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    token_source: TokenSource | None = None
    events: int = 0
    """Number of content events."""
    event_offsets_ns: MutableSequence[int] = dataclasses.field(default_factory=int64s)
    """Arrival of each content event, nanoseconds after `t_send`, in order."""
    clock: Clock = "user"
    """Where arrival times come from: the kernel's receive stamps, or this process, right after a read returned."""
    read_lags_ns: MutableSequence[int] = dataclasses.field(default_factory=int64s)
    """How long each content event lay in the kernel before this process read it; empty where nobody knows.

    Events that this process was too late to read apart share the arrival time of the last of them.
    """
    t_answer: int | None = None
    """Arrival of the first content event that holds more than reasoning."""
    reasoning_tokens: int | None = None
    """Of `output_tokens`, as far as the server tells."""
    tpot_tokens: int | None = None
    """Tokens that came between `t_first` and `t_last`; None where `tpot_basis` says why nobody knows."""
    tpot_basis: TpotBasis | None = None
    """None in records of versions that did not ask, and of failed requests."""
    finish_reason: str | None = None
    http_status: int | None = None
    error: str | None = None
    """An `ErrorKind`, or that of an HTTP status; None for a request that succeeded."""
    error_detail: str | None = None
    text: str | None = None
    """Generated text, kept only when asked for."""

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.error is None

    @property
    def aborted(self) -> bool:
        """Whether the load generator ended it itself: neither a success nor an engine's error."""
        return self.error == ErrorKind.ABORTED

    def fail(self, kind: str, detail: str) -> None:
        """Keep the first error: later ones follow from it."""
        if self.error is None:
            self.error, self.error_detail = kind, whole_text(detail[:MAX_DETAIL_CHARS])

    @property
    def request_id(self) -> str:
        """The `X-Request-Id` that was sent if the plan asked for ids: unique within a block, safe in a header."""
        tail = f".{self.user}.{self.index}"
        worker = _not_id.sub("_", self.worker)
        return worker[-(MAX_REQUEST_ID_CHARS - len(tail)) :] + tail

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON or msgpack."""
        return {name: getattr(self, name) for name in FIELD_NAMES} | {
            name: list(getattr(self, name)) for name in PER_EVENT
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a record from plain data; fields that a later version added are ignored.

        Raises:
            ValueError: a required field is missing.
        """
        try:
            known = {name: data[name] for name in FIELD_NAMES if name in data}
            return cls(**known | {name: int64s(known[name]) for name in PER_EVENT if name in known})
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a request record: {error}") from None


PER_EVENT = ("event_offsets_ns", "read_lags_ns")
FIELD_NAMES = tuple(field.name for field in dataclasses.fields(RequestRecord))


def whole_text(text: str) -> str:
    """Text that UTF-8 can hold: halves of a surrogate pair, which JSON may carry, are joined, or replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def token_count(usage: Any, key: str) -> int | None:
    """Return `usage[key]` if it is a whole number that can be a count, else None. Never raises.

    A whole float counts (some servers write 5.0); a bool, a string, a negative or an absurd number does not.
    """
    value = usage.get(key) if isinstance(usage, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
        return None
    return value
