"""The bytes of a stream: each SSE event as one chunk of a chunked HTTP/1.1 body, built so that an event costs one join.

Shapes are those captured from vLLM 0.24 and KsanaLLM c451219: the same keys in the same order, and KsanaLLM's two
ways of spacing its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from simulator.plan import CONTENT, DONE, FINISH, ROLE, USAGE
from simulator.tokenizer import BANGS, WORD_BYTES, WORDS

LAST_CHUNK = b"0\r\n\r\n"
DONE_EVENT = b"data: [DONE]\n\n"
# Stand for what differs from request to request, when a template is made.
_ID, _TEXT = "\x00id", "\x00text"
_CREATED, _PROMPT, _TOTAL, _COMPLETION, _CACHED = (7_770_000_000_000 + i for i in range(5))
LOOPS = {"words": WORDS * 3, "bangs": BANGS * 3, "prompted": WORDS * 3}


def chunk(payload: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def words(start: int, count: int, loop: tuple[bytes, ...] = LOOPS["words"]) -> bytes:
    """Return the text of tokens `start` to `start + count`, 5 bytes each."""
    offset = start % len(WORDS)
    if count > 2 * len(WORDS):
        return words(start, 1000, loop) + words(start + 1000, count - 1000, loop)
    return b"".join(loop[offset : offset + count])


def usage(prompt: int, total: int, output: int, cached: int | None) -> dict[str, Any]:
    """Return a usage object, keys in the order of both engines; cached tokens only where they are told."""
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": output, **details}


def _dump(value: Any, *, spaced: bool = False) -> str:
    return json.dumps(value, separators=None if spaced else (",", ":"), ensure_ascii=False)


def _template(event: str) -> str:
    """Turn an event made of stand-ins into a %-template."""
    event = event.replace("%", "%%")
    for text, name in ((_ID, "id"), (_TEXT, "text")):
        event = event.replace(json.dumps(text)[1:-1], f"%({name})s")
    numbers = {_CREATED: "created", _PROMPT: "prompt", _TOTAL: "total", _COMPLETION: "completion", _CACHED: "cached"}
    for number, name in numbers.items():
        event = event.replace(str(number), f"%({name})d")
    return event


class Format:
    """Templates of one personality's chat or completion stream; `Writer` fills them for one request."""

    def __init__(
        self, personality: str, *, chat: bool, model: str, text: str = "words", tell_cached: bool = False
    ) -> None:
        """`text` is what is said (`LOOPS`); `tell_cached`: cached tokens are told in usage."""
        self.personality = personality
        self.chat = chat
        self.model = model
        self.loop = LOOPS[text]
        self.tell_cached = tell_cached
        self.id_prefix = "chatcmpl-" if chat else "cmpl-"
        self._templates: dict[tuple[int, str], list[str]] = {}
        content = _template(self.content(self._head(), _TEXT, None, None))
        before, _, after = content.partition("%(text)s")
        self.plain_content = (before, after)

    def _head(self) -> dict[str, Any]:
        return self.envelope(_ID, _CREATED)

    def templates(self, kind: int, reason: str) -> list[str]:
        """Return %-templates of the events of a write of this kind: names are those of `_template`."""
        found = self._templates.get((kind, reason))
        if found is not None:
            return found
        head = self._head()
        used = usage(_PROMPT, _TOTAL, _COMPLETION, _CACHED if self.tell_cached else None)
        made = []
        if kind & ROLE:
            made.append(self.role(head))
        if kind & CONTENT:
            made.append(self.content(head, _TEXT, reason if kind & FINISH else None, used if kind & USAGE else None))
        elif kind & FINISH:
            made.append(self.finish(head, reason, used if kind & USAGE else None))
        elif kind & USAGE:
            made.append(self.own_usage(head, used))
        found = self._templates[kind, reason] = [_template(event) for event in made]
        return found

    def envelope(self, request_id: str, created: int) -> dict[str, Any]:
        """Return the keys that every event starts with."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": request_id, "object": kind, "created": created, "model": self.model}

    def role(self, head: dict[str, Any]) -> str:
        """Return the empty role event."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        if self.personality == "ksana":
            return _dump({**head, "choices": [choice]})
        return _dump({**head, "choices": [choice], "prompt_token_ids": None, "prompt_text": None})

    def content(self, head: dict[str, Any], text: str, finish: str | None, used: dict[str, Any] | None) -> str:
        """Return a content event."""
        if self.personality == "ksana" and self.chat:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "logprobs": None}
            return _dump({**head, "choices": [choice], **({"usage": used} if used else {})}, spaced=True)
        ends = {"stop_reason": None} if finish else {}
        if self.chat:
            choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish, **ends}
            choice["token_ids"] = None
            return _dump({**head, "choices": [choice], **({"usage": used} if used else {})})
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        choice |= {"prompt_token_ids": None, "token_ids": None}
        return _dump({**head, "choices": [choice], "usage": used})

    def finish(self, head: dict[str, Any], reason: str, used: dict[str, Any] | None) -> str:
        """Return an event with an empty delta that only finishes (KsanaLLM's way)."""
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}
        if not self.chat:
            choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}
        return _dump({**head, "choices": [choice], **({"usage": used} if used else {})})

    def own_usage(self, head: dict[str, Any], used: dict[str, Any]) -> str:
        """Return vLLM's last event: usage and no choices."""
        tail = {"system_fingerprint": "vllm-0.24.0-simulated"} if self.personality == "vllm" else {}
        return _dump({**head, "choices": [], "usage": used, **tail})

    def whole(
        self, head: dict[str, Any], text: str, reason: str, used: dict[str, Any],
        logprobs: dict[str, Any] | None = None, prompt_logprobs: list[dict[str, Any] | None] | None = None,
    ) -> bytes:  # fmt: skip
        """Return the body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        if self.chat:
            head = {**head, "object": "chat.completion"}
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
        if prompt_logprobs is not None:
            # In a chat vLLM tells them beside the choices, in a completion within.
            (head if self.chat else choice)["prompt_logprobs"] = prompt_logprobs
        return _dump({**head, "choices": [choice], "usage": used}).encode()


class Writer:
    """Builds the chunks of one stream."""

    __slots__ = (
        "_base", "_format", "_logprobs", "_loop", "_post", "_pre", "_prompt", "_ready", "_start", "_values", "reason",
    )  # fmt: skip

    def __init__(
        self, fmt: Format, request_id: str, created: int, prompt: int, reason: str, *, skip: int = 0, cached: int = 0,
        tokens: Sequence[bytes] | None = None, logprobs: dict[str, Any] | None = None,
        prompt_logprobs: list[dict[str, Any] | None] | None = None,
    ) -> None:  # fmt: skip
        """The text begins with the word whose number is the prompt's length, `skip` words later; or it is `tokens`,
        and then goes on with such words. The log probabilities are those of a whole answer.
        """
        self._format = fmt
        self._loop = fmt.loop
        self._values: dict[str, Any] = {"id": request_id, "created": created, "prompt": prompt, "cached": cached}
        self._prompt = prompt
        self._start = prompt + skip
        self._logprobs = (logprobs, prompt_logprobs)
        if tokens is not None:
            self._start, self._loop = 0, (*tokens, *fmt.loop[len(tokens) :])
        self.reason = reason
        self._ready: dict[tuple[int, int, int], bytes] = {}
        before, after = (part % self._values for part in fmt.plain_content)
        self._pre = b"\r\ndata: " + before.encode()
        self._post = after.encode() + b"\n\n\r\n"
        # The chunk's size counts neither its own CRLF before nor the one after.
        self._base = len(self._pre) + len(self._post) - 4

    def contents(self, first: int, groups: list[int]) -> bytes:
        """Return content events one after another, `groups[i]` tokens in each; `first` tokens came before."""
        if len(groups) == 1:
            tokens = groups[0]
            size = b"%x" % (self._base + WORD_BYTES * tokens)
            return b"".join((size, self._pre, words(self._start + first, tokens, self._loop), self._post))
        if groups.count(1) == len(groups) <= 1000:
            size = b"%x" % (self._base + WORD_BYTES)
            offset = (self._start + first) % len(WORDS)
            between = b"".join((self._post, size, self._pre))
            body = between.join(self._loop[offset : offset + len(groups)])
            return b"".join((size, self._pre, body, self._post))
        parts = []
        for tokens in groups:
            parts.append(self.contents(first, [tokens]))
            first += tokens
        return b"".join(parts)

    def special(self, kind: int, tokens: int, made: int) -> bytes:
        """Return the chunks of any other write: role, last content, finish, usage, done; `made` tokens came before."""
        if (kind, tokens, made) in self._ready:
            return self._ready.pop((kind, tokens, made))
        values = self._values
        values["completion"] = made + tokens
        values["total"] = self._prompt + made + tokens
        if kind & CONTENT:
            values["text"] = words(self._start + made, tokens, self._loop).decode()
        payload = b"".join(
            [chunk(f"data: {template % values}\n\n".encode()) for template in self._format.templates(kind, self.reason)]
        )
        if kind & DONE:
            payload += chunk(DONE_EVENT) + LAST_CHUNK
        return payload

    def prepare(self, kind: int, tokens: int, made: int) -> None:
        """Build a write now, while there is time, for `special` to return later."""
        self._ready[kind, tokens, made] = self.special(kind, tokens, made)

    def tell_cached(self, cached: int) -> None:
        """Have usage tell so many cached tokens, which were not known at first."""
        if self._format.tell_cached:
            self._values["cached"] = cached
            self._ready.clear()

    def whole(self, tokens: int) -> bytes:
        """Return the body of an answer that is not streamed."""
        text = words(self._start, tokens, self._loop).decode()
        head = self._format.envelope(self._values["id"], self._values["created"])
        cached = self._values["cached"] if self._format.tell_cached else None
        used = usage(self._prompt, self._prompt + tokens, tokens, cached)
        return self._format.whole(head, text, self.reason, used, *self._logprobs)
