"""What the fault server says: its tokenizer, its event streams in three engines' shapes, its options."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

DATA = Path(__file__).parent / "data"
CHAT_TEMPLATE_TOKENS = 4
BOS = 2
VOCABULARY = 50_000

FAULTS = {
    "normal": "a proper stream, shaped by the options alone",
    "fixture": "a captured stream of tests/data, byte by byte as it was (name=FILE)",
    "fin": "FIN after `after` content events, the body incomplete",
    "rst": "RST after `after` content events",
    "stall": "silence for `seconds` after `after` content events, then FIN",
    "slow_head": "silence for `seconds` before the response's head",
    "error_event": "an error object in mid-stream after `after` content events (named=1: `event: error`)",
    "garbage": "an event that is not JSON after `after` content events",
    "http": "an HTTP error, `status`, as JSON (html=1: as HTML)",
    "short": "fewer body bytes than Content-Length says, then FIN",
    "long": "more body bytes than Content-Length says",
    "not_http": "bytes that are no HTTP response",
    "bad_chunk": "a malformed chunk header after `after` content events",
    "empty": "a stream without content: role event, [DONE]",
}


@dataclass
class Options:
    """How a response is made; every field can be given in the model's name."""

    style: str = "vllm"  # vllm, ksana, llamacpp: the shape of the events
    usage: str = ""  # separate, finish, last (with the last content), none, always; default by style and request
    delta: str = "content"  # content, reasoning, reasoning_content, tool
    eol: str = "lf"  # lf, crlf, cr, mixed
    send: str = "event"  # event (one write each), bytes (one write a byte), merged (one write in all)
    framing: str = "chunked"  # chunked, length, close
    after: int = 2
    seconds: float = 30.0
    ttft_ms: float = 0.0
    gap_ms: float = 0.0
    status: int = 500
    name: str = "vllm-0.24.0-chat-stream.sse"
    tokens_per_event: int = 1
    clump: int = 1  # hand on so many content events at a time, as a proxy does that buffers
    done: int = 1  # 0: no [DONE]
    blank: int = 1  # 0: the last event lacks its blank line
    comments: int = 0
    multiline: int = 0
    bom: int = 0
    named: int = 0
    html: int = 0
    close: int = 0  # 1: Connection: close; 2: closes without having said so
    drop_tokens: int = 0  # generate this many tokens fewer than asked

    @classmethod
    def parse(cls, text: str) -> tuple[str, Self]:
        """`NAME?key=value` to (fault, options); raises ValueError for what does not exist."""
        fault, _, query = text.partition("?")
        kinds: dict[str, Any] = {option.name: type(option.default) for option in fields(cls)}
        given: dict[str, Any] = {k: kinds[k](value) if k in kinds else None for k, value in parse_qsl(query)}
        unknown = [key for key, value in given.items() if value is None]
        if fault not in FAULTS or unknown:
            raise ValueError(f"no such fault or option: {text!r} (faults: {', '.join(FAULTS)})")
        return fault, cls(**given)


def token_id(word: str) -> int:
    """Token of a word: `w123` is 123, any other a hash, the same in every process."""
    if word[:1] == "w" and word[1:].isdigit() and 10 <= int(word[1:]) < VOCABULARY:
        return int(word[1:])
    return 10 + zlib.crc32(word.encode()) % (VOCABULARY - 10)


def tokenize(text: str, bos: bool = True) -> list[int]:
    """One token a word, and one BOS in front."""
    return [BOS] * bos + [token_id(word) for word in text.split()]


def detokenize(tokens: list[int]) -> str:
    """Text whose `tokenize` gives the same ids (BOS is not text)."""
    return " ".join(f"w{token}" for token in tokens if token != BOS)


def chat_tokens(messages: list[dict[str, Any]]) -> list[int]:
    """Tokens of a conversation: BOS, a fixed template overhead for the whole of it, all words."""
    words = " ".join(str(message.get("content", "")) for message in messages)
    return [BOS] + [3] * CHAT_TEMPLATE_TOKENS + tokenize(words, bos=False)


def prompt_tokens(body: dict[str, Any]) -> list[int]:
    """Prompt tokens of a completion, chat or /tokenize body."""
    if "messages" in body:
        return chat_tokens(body["messages"])
    prompt = body.get("prompt", "")
    if isinstance(prompt, list):
        return [int(token) for token in (prompt[0] if prompt and isinstance(prompt[0], list) else prompt)]
    return tokenize(prompt, bool(body.get("add_special_tokens", True)))


class EventMaker:
    """Makes the event payloads of one response in an engine's shape."""

    def __init__(self, chat: bool, body: dict[str, Any], options: Options) -> None:
        self.chat, self.options = chat, options
        self.model = str(body.get("model", "m"))
        self.count = max(int(body.get("max_tokens") or body.get("max_completion_tokens") or 16), 1)
        self.count = max(self.count - options.drop_tokens, 0)
        self.prompt_count = len(prompt_tokens(body))
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        default = "finish" if options.style == "ksana" else "separate"
        self.usage_place = options.usage or (default if asked else "none")
        self.texts = [f" tok{i}" for i in range(self.count)]

    def usage(self, generated: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_count,
            "total_tokens": self.prompt_count + generated,
            "completion_tokens": generated,
        }

    def delta(self, text: str, first: bool) -> dict[str, Any]:
        kind = self.options.delta
        if kind == "tool":
            call: dict[str, Any] = {"index": 0, "function": {"arguments": text}}
            if first:
                call |= {"id": "call_1", "type": "function"}
                call["function"]["name"] = "look_up"
            return {"tool_calls": [call]}
        return {kind: text}

    def event(self, choice: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
        head = {"id": "cmpl-1", "created": 1795352296, "model": self.model}
        head["object"] = "chat.completion.chunk" if self.chat else "text_completion"
        choices = [] if choice is None else [{"index": 0, **choice, "logprobs": None, "finish_reason": finish}]
        if self.options.style == "llamacpp":
            message = {"choices": choices, **head, **more}
        else:
            message = {**head, "choices": choices, **more}
        compact = self.options.style != "ksana"
        return json.dumps(message, separators=(",", ":") if compact else None, ensure_ascii=False).encode()

    def content(self, text: str, first: bool = False, finish: str | None = None, **more: Any) -> bytes:
        return self.event({"delta": self.delta(text, first)} if self.chat else {"text": text}, finish, **more)

    def payloads(self) -> list[tuple[bytes, bool]]:
        """All payloads in order, each with whether it carries content."""
        events: list[tuple[bytes, bool]] = []
        if self.chat:
            events.append((self.event({"delta": {"role": "assistant", "content": ""}}), False))
        step = max(self.options.tokens_per_event, 1)
        groups = ["".join(self.texts[i : i + step]) for i in range(0, self.count, step)]
        style, place = self.options.style, self.usage_place
        # vLLM puts the finish on the last content event, the others on an event of its own.
        joined = place == "last" or (style == "vllm" and place != "finish")
        for i, text in enumerate(groups):
            last = joined and i == len(groups) - 1
            more: dict[str, Any] = {}
            if place == "always":
                more["usage"] = self.usage(min((i + 1) * step, self.count))
            elif last and place == "last":
                more["usage"] = self.usage(self.count)
            events.append((self.content(text, i == 0, "length" if last else None, **more), True))
        if not joined or not groups:
            nothing: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
            more = {"usage": self.usage(self.count)} if place == "finish" else {}
            events.append((self.event(nothing, "stop" if style == "ksana" else "length", **more), False))
        if place in ("separate", "always"):
            events.append((self.event(None, usage=self.usage(self.count)), False))
        if self.options.done:
            events.append((b"[DONE]", False))
        return events

    def whole(self) -> bytes:
        """The answer to a request without `stream`."""
        text = "".join(self.texts)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return json.dumps({"model": self.model, "choices": [choice], "usage": self.usage(self.count)}).encode()


def frame(payload: bytes, number: int, options: Options, last: bool = False, name: str = "") -> bytes:
    """One event on the wire, in the line ends and dress that the options ask for."""
    lines = [f"event: {name}".encode()] if name else []
    if options.comments:
        lines += [b": ping", b"", b":", b"id: 7", b"retry: 100"]
    if options.multiline and payload.startswith(b"{"):
        # A line break between two JSON members is still JSON once the data lines are joined.
        head, comma, tail = payload.partition(b",")
        lines += [b"data: " + head + comma, b"data:" + tail]
    else:
        lines.append(b"data: " + payload)
    lines += [] if last and not options.blank else [b""]
    ends = {"lf": [b"\n"], "crlf": [b"\r\n"], "cr": [b"\r"], "mixed": [b"\r\n", b"\n", b"\r"]}[options.eol]
    wire = b"".join(line + ends[(number + i) % len(ends)] for i, line in enumerate(lines))
    return (b"\xef\xbb\xbf" if options.bom and number == 0 else b"") + wire
