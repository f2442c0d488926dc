"""One streaming request, from the first byte sent to the last event read, into a request record."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping

from loadgen.errors import without_secrets
from loadgen.record import ErrorKind, RequestRecord, http_kind
from loadgen.stream.event_reader import EventReader
from loadgen.stream.http_failures import ConnectionCut, StreamFailure
from loadgen.stream.http_stream import Connection, ResponseStream
from loadgen.stream.sse import SSEError
from loadgen.stream.stream_event import error_text
from loadgen.stream.timeouts import Timeouts
from loadgen.stream.token_basis import settle_tokens

END_GRACE_S = 0.2
"""How long the end of the response may take to follow the end of the answer, for the connection to serve again."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestSettings:
    """How requests are sent and judged: the same for all of a block."""

    path: str
    """Route on the connection's server."""
    headers: Mapping[str, str]
    """Additional ones."""
    timeouts: Timeouts
    request_ids: bool = False
    """Send each record's `request_id` as `X-Request-Id`."""
    keep_text: bool = False
    """Keep the generated text in the record."""
    count_tokens: Callable[[str], int] | None = None
    """Counts the tokens of a text by the model's tokenizer."""
    reasoning_end: str | None = None
    """Text that ends the reasoning inside the answer's text."""
    sends_all: bool = False
    """Whether the server is of a kind that sends every token that it counts."""
    allow_short_output: bool = False
    """Whether an output shorter than asked for is no error."""


def exchange(
    connection: Connection,
    body: bytes,
    record: RequestRecord,
    settings: RequestSettings,
    *,
    scheduled: bool = False,
    ready: Callable[[], None] | None = None,
) -> None:
    """Send one request and write everything that is timed and told into `record`, as it happens.

    Whatever ends it (a failure, or a GreenletExit, which passes through) the record holds all that was measured
    until then. Failures become `record.error`; this function raises nothing of its own.

    Args:
        connection: opened here when it is not open; its cost goes to `record.connect_ns`, never into the times.
        body: the request's JSON.
        record: `t_intended`, `t_send` and `t_done` are overwritten.
        settings: what it has in common with others.
        scheduled: `record.t_intended` is when a schedule wants the request; else it is set to `t_send`.
        ready: called when the request only needs to be written; it may wait. Not where it could not be made ready.
    """
    try:
        try:
            _attempt(connection, body, record, settings, scheduled, ready)
        except ConnectionCut as cut:
            if not cut.retriable:
                raise
            # The server closed an idle connection just as we wrote to it: it took no request.
            _attempt(connection, body, record, settings, scheduled, None)
    except StreamFailure as failure:
        record.fail(failure.kind, str(failure))
    except SSEError as failure:
        record.fail(ErrorKind.BAD_EVENT, str(failure))


def _attempt(
    connection: Connection,
    body: bytes,
    record: RequestRecord,
    settings: RequestSettings,
    scheduled: bool,
    ready: Callable[[], None] | None,
) -> None:
    """Send the request once and read its response. Raises StreamFailure or SSEError, with the record up to date."""
    headers = {**settings.headers, "X-Request-Id": record.request_id} if settings.request_ids else settings.headers
    limits = settings.timeouts
    opened, response, sent = connection.opened, None, False
    try:
        connection.ensure_open()
        record.t_send, sent = time.monotonic_ns(), True  # kept where writing the request fails; else overwritten
        response = connection.post(
            settings.path, body, headers, stall_timeout_s=limits.stall_s, total_timeout_s=limits.total_s, ready=ready
        )
        record.t_send = response.t_send
        if 200 <= response.wait_head() < 300:
            _read_events(record, connection, response, settings)
        else:
            _http_error(record, response)
    finally:
        record.t_done = time.monotonic_ns()
        if connection.opened != opened:
            record.connect_ns = connection.connect_ns or 0
        if response is None:
            record.t_send = record.t_send if sent else record.t_done
        else:
            record.t_done = response.t_done or record.t_done
            record.http_status = response.status
            response.close()
        if not scheduled:
            record.t_intended = record.t_send
        _hide_secrets(record, settings.headers)  # a StreamFailure, which is told later, has our own words


def _read_events(
    record: RequestRecord, connection: Connection, response: ResponseStream, settings: RequestSettings
) -> None:
    record.clock = response.clock
    record.http_status = response.status
    keep_text = settings.keep_text or settings.count_tokens is not None or settings.reasoning_end is not None
    events = EventReader(
        record,
        response.t_send,
        kernel=response.clock == "kernel",
        keep_text=keep_text,
        reasoning_end=settings.reasoning_end,
    )
    response.heard = events.heard
    response.skim = None if keep_text else events.skim
    t = response.t_send
    try:
        for t, data in response:
            events.feed(data, t, response.read_at)
            if events.done:
                break
        else:
            events.end(t, response.read_at)
    finally:
        events.close()
    if events.done:
        connection.held_open = not response.drain(0.0 if connection.held_open else END_GRACE_S)
    if record.error is None:
        _check_end(record, response, events, settings)
    told = record.output_tokens
    if record.error is None:
        settle_tokens(record, events, settings.count_tokens, whole=settings.sends_all)
        if record.output_tokens is None and events.zero_usage and record.events:
            record.fail(ErrorKind.ZERO_USAGE, "the server counted no output token, though text came")
    if settings.count_tokens is None and not settings.keep_text:
        record.text = None  # it was wanted for the end of the reasoning only
    if record.error is None:
        _check(record, settings, told)


def _check_end(record: RequestRecord, response: ResponseStream, events: EventReader, settings: RequestSettings) -> None:
    """Judge how the stream ended."""
    if record.finish_reason is not None or (events.done and not record.events and not events.stray):
        return
    kind, stray = response.headers.get("content-type", "none"), events.stray
    told = f": {_error_in(stray)}" if stray else ""
    if not record.events and not events.done and not kind.startswith("text/event-stream"):
        kind = without_secrets(kind, settings.headers)[:80]
        record.fail(ErrorKind.BAD_RESPONSE, f"the answer is no event stream (content type {kind}){told}")
    elif stray.startswith("{"):
        record.fail(ErrorKind.STREAM_ERROR, _error_in(stray))
    elif events.done:
        record.fail(ErrorKind.NO_FINISH, "the stream was ended by [DONE], and no finish reason came before it")
    else:
        record.fail(ErrorKind.TRUNCATED, f"the stream ended without a finish reason and without [DONE]{told}")


def _error_in(text: str) -> str:
    """The words of an error in a body: of its JSON, where it is that."""
    try:
        return error_text(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _http_error(record: RequestRecord, response: ResponseStream) -> None:
    text = response.read_body().decode("utf-8", "replace").strip()
    if response.status is not None and 300 <= response.status < 400:
        text = f"redirected to {response.headers.get('location', 'nowhere')}"
    record.fail(http_kind(response.status), _error_in(text) or "no detail")


def _hide_secrets(record: RequestRecord, headers: Mapping[str, str]) -> None:
    """Have the server's words in the record repeat no key that was sent to it."""
    if record.error_detail is not None:
        record.error_detail = without_secrets(record.error_detail, headers)
    if record.finish_reason not in (None, "stop", "length"):
        record.finish_reason = without_secrets(record.finish_reason, headers)


def _check(record: RequestRecord, settings: RequestSettings, told: int | None = None) -> None:
    """Judge a response that came through whole: its length must be what was asked for.

    Where the server leaves reasoning out of its count, `told`, that is the length that it was asked for.
    """
    short = settings.allow_short_output
    if not record.events:
        record.fail(ErrorKind.NO_CONTENT, "the stream ended without any generated text")
    elif record.output_tokens is None:
        record.fail(
            ErrorKind.NO_USAGE,
            "the server sent no usage, so neither length is known; give the model's tokenizer with --tokenizer",
        )
    elif record.prompt_tokens is not None and record.prompt_tokens != record.prompt_tokens_wanted:
        record.fail(
            ErrorKind.PROMPT_TOKENS,
            f"{record.prompt_tokens_wanted} prompt tokens were sent, the server counted {record.prompt_tokens}",
        )
    elif not any(_of_length(record, n, allow_short=short) for n in (record.output_tokens, told) if n is not None):
        record.fail(
            ErrorKind.OUTPUT_TOKENS,
            f"{record.output_tokens_wanted} output tokens were asked for, {record.output_tokens} came "
            f"(finish_reason {record.finish_reason})",
        )


def _of_length(record: RequestRecord, tokens: int, *, allow_short: bool) -> bool:
    """Whether an output is as long as asked for. More than that is wrong anywhere.

    A text that ran to the limit need not split into as many tokens again as it was made of: a count from the text may
    be off by a tenth there.
    """
    off = record.output_tokens_wanted - tokens
    recounted = record.token_source == "tokenizer" and record.finish_reason == "length"  # noqa: S105
    return off == 0 or (off > 0 and allow_short) or (recounted and abs(off) <= max(1, tokens // 10))
