"""What one event of an OpenAI-compatible stream carries, decoded in full. Pure.

Servers agree on little beside `choices[].delta`: where usage stands, what reasoning is called, what an error looks
like. All forms that are known are told apart here, and nothing else of the program knows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadgen.record import ErrorKind, whole_text
from loadgen.stream.responses import as_chat

MAX_ERROR_CHARS = 2000
DONE_PAYLOAD = b"[DONE]"

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thought")
REASONING_LISTS = ("reasoning_details", "thinking_blocks")
REASONING_ORDER = (*REASONING_KEYS, *REASONING_LISTS)
REASONING_PLACES = frozenset(REASONING_ORDER)
PLAIN_CHOICE = frozenset({"index", "delta", "logprobs", "finish_reason", "stop_reason", "token_ids", "matched_stop"})
PLAIN_TEXT = PLAIN_CHOICE | {"text"}
PLAIN_DELTA = frozenset({"role", "content"})
"""Keys of most events; what has no other need not be searched for text in unusual places."""
REASONING_PARTS = frozenset({"thinking", "reasoning", "thought", "reasoning.text", "reasoning.summary"})
SIGNS_OF_LIFE = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})
CHUNK_KEYS = frozenset({"choices", "usage", "x_groq", "prompt_filter_results", "timings", "prompt_progress"})
COUNTS = {
    "amazon-bedrock-invocationMetrics": ("inputTokenCount", "outputTokenCount"),
    "timings": ("prompt_n", "predicted_n"),  # llama.cpp; of the prompt only what no cache had
}
"""Servers' own counts of prompt and output tokens."""
NO_FINISH = frozenset({"null", "none"})
"""Text that some servers send as the finish reason of an event that finishes nothing."""
FINISH_FAILURES = {
    **dict.fromkeys(("abort", "aborted", "cancel", "cancelled", "canceled", "user_cancel"), ErrorKind.FINISH_ABORT),
    **dict.fromkeys(("timeout", "interrupted", "preempted"), ErrorKind.FINISH_ABORT),
    **dict.fromkeys(("error", "internal_error", "error_limit", "network_error"), ErrorKind.FINISH_ERROR),
    **dict.fromkeys(("insufficient_system_resource", "malformed_function_call"), ErrorKind.FINISH_ERROR),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "recitation"), ErrorKind.CONTENT_FILTER),
    **dict.fromkeys(("blocklist", "prohibited_content", "spii", "image_safety"), ErrorKind.CONTENT_FILTER),
    **dict.fromkeys(("guardrail_intervened", "error_toxic", "refusal", "sensitive"), ErrorKind.CONTENT_FILTER),
}
"""Finish reasons, in lower case, with which an answer is no success; by what servers and gateways are known to send."""


class NamedPayload(bytes):
    """A payload whose event had an `event:` field; `event` holds that name.

    Nearly every event of an engine is unnamed, so those stay plain `bytes` and cost nothing more.
    """

    event: str

    def __new__(cls, data: bytes, event: str) -> NamedPayload:
        """Make a payload of `data` that carries the event's name."""
        payload = super().__new__(cls, data)
        payload.event = event
        return payload


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """What one event carries; it may be several things at once.

    `content`: it carries generated text, reasoning text or a tool-call delta, of any choice; `answer`: not only
    reasoning. `finish_reason`: the first that a choice gives. `usage`: by the names of the OpenAI API.
    `error_kind`: `stream_error` or `choice_error` (the server reported an error in mid-stream), `bad_event` (the
    payload is not a JSON object) or `unknown_event` (it is none that is known); `error` is then the detail in words.
    `done`: the `[DONE]` marker. `text`: the generated text of all choices, None where nothing was decoded.
    An event with none of these (role, empty delta, keep-alive) is `EMPTY`.
    """

    content: bool = False
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None
    error_kind: ErrorKind | None = None
    done: bool = False
    text: str | None = None
    answer: bool = False


EMPTY = StreamEvent()
CONTENT = StreamEvent(content=True)
DONE = StreamEvent(done=True)
_decode = json.JSONDecoder().decode


def classify(payload: bytes) -> StreamEvent:
    """Decode a payload in full. Never raises: what cannot be decoded is a `bad_event`."""
    if not payload.endswith(b"}") and payload.strip(b" \t\r\n\"'") == DONE_PAYLOAD:
        return DONE
    name = payload.event.strip().lower() if isinstance(payload, NamedPayload) else ""
    if name in SIGNS_OF_LIFE:
        return EMPTY
    named_error = bool(name) and name.endswith(("exception", "error"))
    why = "not a JSON object"
    try:
        message = json_of(payload) if payload and not payload.isspace() else {}
        if named_error or isinstance(message, dict):
            return _reported(error_text(message)) if named_error else _event_of(as_chat(message), name)
    except (ValueError, RecursionError) as error:
        if named_error:
            return _reported(payload.decode("utf-8", "replace"))
        why = f"not JSON ({error})"
    return _bad_event(why, payload)


def json_of(data: bytes) -> Any:
    """Decode JSON, in which bad bytes are replaced as the standard of event streams says.

    Raises ValueError or RecursionError. Not by orjson: on processors that clock down for wide vectors one call of it
    makes the next half millisecond 10% slower, which is more than it saves.
    """
    return _decode(data.decode("utf-8", "replace"))


def finish_failure(reason: str) -> ErrorKind | None:
    """Why an answer with this finish reason is no success; None where it is one."""
    return FINISH_FAILURES.get(reason.lower())


def _event_of(message: dict[str, Any], name: str = "") -> StreamEvent:
    if message.get("error"):
        return _reported(error_text(message))
    if message.get("object") == "error":  # vLLM before 0.10 sent the error's members at the top
        return _reported(error_text({"error": message}))
    choices = message.get("choices")
    choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    finish_reason = error = None
    answer = False
    texts: list[str] = []
    for choice in choices:
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if error is None and (problem := choice.get("error") or delta.get("error")):
            error = error_text(problem)
        finish = choice.get("finish_reason")
        if finish and finish_reason is None and str(finish).lower() not in NO_FINISH:
            finish_reason = whole_text(str(finish))
        key = next(iter(delta), None)
        piece = choice.get("text") if key is None else delta.get("content")
        known = PLAIN_TEXT if key is None else PLAIN_CHOICE
        if isinstance(piece, str) and known.issuperset(choice) and (key is None or PLAIN_DELTA.issuperset(delta)):
            texts.append(piece)
            answer = answer or bool(piece)
        elif key in REASONING_KEYS and len(delta) == 1 and isinstance(delta[key], str) and known.issuperset(choice):
            texts.append(delta[key])
        else:
            reasoning, answered = _reasoning_of(choice, delta), _answer_of(choice, delta)
            answer = answer or bool(answered)
            texts += reasoning + answered
    text = "".join(texts)
    usage = message.get("usage")
    if not (isinstance(usage, dict) and usage):
        usage = _usage_elsewhere(message, choices) if finish_reason is not None or not text else None
    if not choices and usage is None and not _is_framing(message, name):
        return StreamEvent(error=error_text(message), error_kind=ErrorKind.UNKNOWN_EVENT)
    if not (text or finish_reason is not None or usage is not None or error is not None):
        return EMPTY
    kind = ErrorKind.CHOICE_ERROR if error is not None else None
    return StreamEvent(bool(text), finish_reason, usage, error, kind, False, text or None, answer)


def _is_framing(message: dict[str, Any], name: str) -> bool:
    """Whether a message without choices is one that streams are known to hold: a chunk, a sign of life, a named one."""
    if name not in ("", "message", "data") or not message or not CHUNK_KEYS.isdisjoint(message):
        return True
    kind = message.get("object")
    return str(message.get("type")) in SIGNS_OF_LIFE or (
        isinstance(kind, str) and kind.endswith(("chunk", "completion"))
    )


def _usage_elsewhere(message: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The usage object that is not at the top: in Groq's extension, in a choice; else others' own counts.

    It comes with the end of an answer.
    """
    for place in choices if "x_groq" not in message else (message["x_groq"], *choices):
        if isinstance(place, dict) and "usage" in place and isinstance(place["usage"], dict) and place["usage"]:
            return place["usage"]
    for name, (prompt, completion) in COUNTS.items():
        if name in message and isinstance(counts := message[name], dict) and completion in counts:
            told = {"completion_tokens": counts[completion]}
            return told if name == "timings" else {**told, "prompt_tokens": counts.get(prompt)}
    return None


def _reasoning_of(choice: dict[str, Any], delta: dict[str, Any]) -> list[str]:
    """Every non-empty piece of reasoning text. Some servers send the same under several names: it is counted once."""
    for place in (delta, choice):
        if not REASONING_PLACES.isdisjoint(place):
            for key in REASONING_ORDER:
                if key in place and (found := list(_texts(place[key]))):
                    return found
    content = delta.get("content")
    if isinstance(content, list):
        return [text for part in content if _is_reasoning(part) for text in _texts(part)]
    return [content] if isinstance(content, str) and content and _is_thought(delta) else []


def _answer_of(choice: dict[str, Any], delta: dict[str, Any]) -> list[str]:
    """Every non-empty piece of generated text that is no reasoning: text, refusals, calls of tools."""
    pieces: list[object] = [choice.get("text")]
    if delta:
        content = delta.get("content")
        if isinstance(content, list):
            pieces += [text for part in content if not _is_reasoning(part) for text in _texts(part)]
        elif not _is_thought(delta):
            pieces.append(content)
        pieces.append(delta.get("refusal"))
        calls = delta.get("tool_calls")
        functions = (
            [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        )
        for function in [*functions, delta.get("function_call")]:
            if isinstance(function, dict):
                pieces += [function.get("name"), function.get("arguments")]
    return [piece for piece in pieces if isinstance(piece, str) and piece]


def _is_reasoning(part: object) -> bool:
    return isinstance(part, dict) and (str(part.get("type")) in REASONING_PARTS or part.get("thought") is True)


def _is_thought(delta: dict[str, Any]) -> bool:
    """Whether Google's gateway marks the content as thought."""
    extra = delta.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return isinstance(google, dict) and google.get("thought") is True


def _texts(value: object, depth: int = 4) -> Iterator[str]:
    """The text in a piece of reasoning or a content part, whichever of the usual keys holds it."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list) and depth:
        for each in value:
            yield from _texts(each, depth - 1)
    elif isinstance(value, dict) and depth:
        for key in ("thinking", "text", "summary", "reasoning", "content"):
            if found := list(_texts(value.get(key), depth - 1)):
                yield from found
                return


def error_text(message: object) -> str:
    """The words of an error object, `{"error": ...}` or bare, with its type and code where it has them."""
    detail = message.get("error", message) if isinstance(message, dict) else message
    if isinstance(detail, dict) and isinstance(detail.get("message"), str):
        marks = [_clip(str(detail[key])) for key in ("type", "code") if detail.get(key)]
        return _clip(detail["message"] + (f" ({', '.join(marks)})" if marks else ""))
    return _clip(detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False))


def _reported(text: str) -> StreamEvent:
    return StreamEvent(error=_clip(text), error_kind=ErrorKind.STREAM_ERROR)


def _bad_event(why: str, payload: bytes) -> StreamEvent:
    shown = payload[:200].decode("utf-8", "replace")
    return StreamEvent(error=_clip(f"{why}: {shown}"), error_kind=ErrorKind.BAD_EVENT)


def _clip(text: str) -> str:
    text = whole_text(text)
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + "..."
