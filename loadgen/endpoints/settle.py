"""Finds out what an endpoint needs, by asking as a measured request will ask and changing what is refused.

Nothing of it is timed. What was found holds for this process: an engine that is started anew needs the same.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from loadgen.endpoints.endpoint import ANSWER_LIMIT_S, NOTHING, Client, Endpoint, UnreachableError
from loadgen.endpoints.hints import no_right
from loadgen.engines import GENERIC, Api
from loadgen.engines.needs import KEY_HEADERS, LENGTH_FIELDS, PREFIXES, Needs
from loadgen.errors import UserError
from loadgen.record import REJECTIONS, token_count
from loadgen.stream.responses import as_chat

Tell = Callable[[str], None]
REFUSED, NO_ROUTE, NO_RIGHT = (400, 422), (404, 405, 501), (401, 403)
GUESSES = ("stream_options", "max_tokens", "temperature", "ignore_eos", "min_tokens")
"""Fields that servers are known to refuse."""
MAX_PROBES = 24
_found: dict[tuple[Endpoint, bool], Endpoint] = {}


def settle(endpoint: Endpoint, *, fixed_api: bool = False, tell: Tell = lambda text: None) -> Endpoint:
    """The endpoint with what it was found to need; as it is where it cannot be asked now.

    Args:
        endpoint: a known engine of which nothing special was said is not asked.
        fixed_api: its API was chosen by a person, and is not changed.
        tell: given one line for each thing found.

    Raises:
        UserError: it refuses whatever is tried; says how, and which option may help.
    """
    if endpoint.kind != GENERIC and _with(endpoint, reasoning_end=None).needs == NOTHING:
        return endpoint
    key = (endpoint, fixed_api)
    if key not in _found:
        try:
            found = _Search(endpoint, fixed_api, tell).run()
        except UnreachableError:
            return endpoint
        if found is None:
            return endpoint
        _found[key] = found
    return _found[key]


@dataclasses.dataclass(frozen=True, slots=True)
class _Change:
    endpoint: Endpoint
    words: str
    named: bool
    """Whether the answer before named what is changed."""

    def helps(self, status: int, text: str, now: int, now_text: str) -> bool:
        """Whether an answer is a right one, or gets further than the one before."""
        if 200 <= now < 300:
            return True
        if status in NO_ROUTE:
            return now in NO_RIGHT or (now in REFUSED and "model" not in now_text.lower())
        return now in REFUSED and (status in NO_RIGHT or (self.named and now_text != text))


class _Search:
    def __init__(self, endpoint: Endpoint, fixed_api: bool, tell: Tell) -> None:
        self._tell = tell
        self._fixed_api = fixed_api
        self._now = endpoint
        self._tried = {endpoint}

    def run(self) -> Endpoint | None:
        """The endpoint as it answers; None where it is too busy to say."""
        status, text = first = _ask(self._now, stream=True)
        while not 200 <= status < 300:
            if status in REJECTIONS.values() or (status >= 500 and status not in NO_ROUTE):
                return None
            change = next((each for each in self._changes(status, text) if each.endpoint not in self._tried), None)
            if change is None or len(self._tried) > MAX_PROBES:
                raise UserError(self._refusal(*first))
            self._tried.add(change.endpoint)
            answer = _ask(change.endpoint, stream=True)
            if change.helps(status, text, *answer):
                self._tell(f"{self._now.base_url} answered HTTP {status} ({_short(text)}): {change.words}")
                self._now, (status, text) = change.endpoint, answer
        self._whole_answers()
        return self._now

    def _whole_answers(self) -> None:
        if self._now.needs.stream_only is not None:
            return
        status, text = _ask(self._now, stream=False)
        if status in NO_ROUTE:  # some gateways stream on any path
            for change in self._routes(text, elsewhere=True):
                if change.endpoint not in self._tried and all(
                    _fine(change.endpoint, stream) for stream in (False, True)
                ):
                    self._tell(f"{self._now.base_url} answered HTTP {status} ({_short(text)}): {change.words}")
                    self._now, status = change.endpoint, 200
                    break
        only = status in (*REFUSED, *NO_ROUTE)
        if only:
            self._tell(f"{self._now.base_url} refuses whole answers ({_short(text)}): asked for streams only")
        self._now = _with(self._now, stream_only=only)

    def _changes(self, status: int, text: str) -> Iterator[_Change]:
        """What may be tried on such an answer."""
        if status in NO_RIGHT:
            yield from self._keys()
        if status in REFUSED:
            yield from self._fields(text)
        if status in (*NO_ROUTE, *REFUSED):
            yield from self._routes(text, elsewhere=status in NO_ROUTE)

    def _fields(self, text: str) -> Iterator[_Change]:
        """Fields that the answer names; where it names none, those that servers are known to refuse."""
        now, needs = self._now, self._now.needs
        sent = [name for name in now.fields(1) if name not in ("model", "stream")]
        named = [name for name in sent if re.search(rf"\b{name}\b", text)]
        if "max_completion_tokens" in text and needs.max_tokens_field is None:
            named.insert(0, "max_tokens")
        for name in dict.fromkeys(named or [name for name in GUESSES if name in sent]):
            if name == "stream_options":
                yield _Change(_with(now, stream_options=False), f"asked without {name}", bool(named))
            elif name not in LENGTH_FIELDS:
                leave_out = (*needs.leave_out, name)
                yield _Change(_with(now, leave_out=leave_out), f"asked without {name}", bool(named))
            elif needs.max_tokens_field is None:
                other = LENGTH_FIELDS[1] if name == LENGTH_FIELDS[0] else LENGTH_FIELDS[0]
                yield _Change(_with(now, max_tokens_field=other), f"the output length goes as {other}", bool(named))
        if not named:
            both = _with(now, stream_options=False, max_tokens_field=LENGTH_FIELDS[1])
            yield _Change(both, f"asked without stream_options, and with {LENGTH_FIELDS[1]}", False)

    def _routes(self, text: str, *, elsewhere: bool) -> Iterator[_Change]:
        """Other APIs, and other paths."""
        now, given = self._now, self._now.needs.api_path
        if "model" in text.lower() and now.model in text and now.route() not in text:
            return  # it is the model that is not there
        fixed = self._fixed_api or now.needs.route_api is not None
        apis: list[Api] = [now.api, *(api for api in now.engine.apis if not fixed and api != now.api)]
        for path in (None, *PREFIXES) if elsewhere and given is None else (given,):
            for api in apis:
                changed = dataclasses.replace(_with(now, api_path=path), api=api)
                other = f" (--api {api})" if api != now.api else ""
                yield _Change(changed, f"asked by {changed.route()}{other}", False)

    def _keys(self) -> Iterator[_Change]:
        if self._now.api_key and self._now.needs.key_header is None:
            for name in KEY_HEADERS:
                yield _Change(_with(self._now, key_header=name), f"the key goes in the header {name}", False)

    def _refusal(self, status: int, text: str) -> str:
        now = self._now
        hint = "Name what it needs: --header, --extra-body, --max-tokens-field, --no-stream-options."
        if status in NO_ROUTE:
            hint = "Name its API with --api chat, completions or responses, and its path with --api-path."
        elif status in NO_RIGHT:
            hint = no_right(now.api_key, now.needs)
        if "chat template" in text.lower():
            hint = "Ask it with --api completions."
        return f"POST {now.base_url}{now.route()}: HTTP {status}: {text[:300] or 'no detail'}. {hint}"


def whole_answer(endpoint: Endpoint, client: Client, fields: dict[str, Any]) -> Any:
    """The JSON of a whole answer; of an endpoint that only streams, `usage` and choices as its events tell them.

    Raises UserError.
    """
    body = {**fields, "stream": bool(endpoint.needs.stream_only)}
    if not endpoint.needs.stream_only:
        body.pop("stream_options", None)
        return client.call("POST", endpoint.route(), body, timeout_s=ANSWER_LIMIT_S)
    status, text = client.post(endpoint.route(), body, ANSWER_LIMIT_S)
    if not 200 <= status < 300:
        raise UserError(f"POST {endpoint.base_url}{endpoint.route()}: HTTP {status}: {text[:300] or 'no detail'}")
    return merged(text)


def merged(stream: str) -> dict[str, Any]:
    """What the events of a stream say together: the last usage."""
    usage = None
    for line in stream.splitlines():
        if line.startswith("data:"):
            try:
                event = json.loads(line[5:])
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                usage = as_chat(event).get("usage") or usage
    return {"usage": usage}


def prompt_tokens(reply: Any) -> int | None:
    """Prompt tokens that an answer counts; None where it tells none."""
    usage = as_chat(reply).get("usage") if isinstance(reply, dict) else None
    return token_count(usage, "prompt_tokens") or None


def _ask(endpoint: Endpoint, *, stream: bool) -> tuple[int, str]:
    """Status and text. Raises UserError: UnreachableError where nothing answers."""
    # What all tokenizers know, and no server takes for empty.
    fields = {**endpoint.fields(1), **endpoint.prompt("Hello")}
    if not stream:
        fields["stream"] = False
        fields.pop("stream_options", None)
    return endpoint.client().post(endpoint.route(), fields, ANSWER_LIMIT_S)


def _fine(endpoint: Endpoint, stream: bool) -> bool:
    return 200 <= _ask(endpoint, stream=stream)[0] < 300


def _with(endpoint: Endpoint, **changes: Any) -> Endpoint:
    needs = Needs.model_validate({**endpoint.needs.model_dump(), **changes})
    return dataclasses.replace(endpoint, needs=needs)


def _short(text: str) -> str:
    return " ".join(text.split())[:120] or "no detail"
