"""Asks an endpoint through the openai SDK, as an application would. Far too slow to time a race with, and not meant to.

The SDK is loaded by preflight alone, never by a process that times requests.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import openai

from loadgen.endpoints.answers import Answer, Refused, StreamAnswer, Token, UsagePlace
from loadgen.endpoints.endpoint import ANSWER_LIMIT_S, Client, Endpoint, LateError
from loadgen.engines import Api
from loadgen.errors import UserError, without_secrets
from loadgen.record import token_count
from loadgen.stream.responses import as_chat

_http: Any = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
"""What the SDK speaks HTTP with: httpx2, or httpx in older versions."""
MAX_GENERATED = 8 << 20
"""Bytes of an answer: thousands of tokens with all that may be told of each."""
Prompt = str | list[int]
OF_ANY_REQUEST = ("host", "connection", "accept", "accept-encoding", "user-agent", "content-type", "content-length")


class _Transport(_http.BaseTransport):  # type: ignore[misc]
    """Sends the SDK's requests, and reads their answers, as all that is not timed: within limits of time and size."""

    def __init__(self, client: Client, limit_s: float) -> None:
        self._client, self._limit_s = client, limit_s

    def handle_request(self, request: Any) -> Any:
        """What the SDK calls for each request. Raises UserError."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        asked = request.method, str(request.url)
        answer = self._client.open(*asked, request.read(), headers, self._limit_s)
        body = _Body(self._client.read(answer, *asked, self._limit_s, MAX_GENERATED))
        return _http.Response(answer.status, headers=list(answer.headers.items()), stream=body)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


class _Body(_http.SyncByteStream):  # type: ignore[misc]
    def __init__(self, coming: Generator[bytes]) -> None:
        self._coming = coming

    def __iter__(self) -> Iterator[bytes]:
        return self._coming

    def close(self) -> None:
        self._coming.close()


class Asker:
    """One endpoint. Every method raises `Refused`."""

    def __init__(self, endpoint: Endpoint, api: Api | None = None) -> None:
        """`api` is the one to ask by; None for the endpoint's own."""
        self.model = endpoint.model
        self._hung: str | None = None
        self._limit_s = ANSWER_LIMIT_S
        self.api = api or endpoint.api
        self._endpoint = endpoint
        self._route = endpoint.route(self.api)
        self._headers: dict[str, Any] = {"Authorization": openai.Omit(), **endpoint.headers()}
        self._client: Any = openai.OpenAI(
            base_url=endpoint.base_url,
            api_key="none",  # the SDK insists on one
            max_retries=0,
            timeout=self._limit_s,
            # No proxy, and the authorities of measured requests. The key goes nowhere that an answer points to.
            http_client=openai.DefaultHttpxClient(
                trust_env=False,
                transport=_Transport(endpoint.client(), self._limit_s),
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                event_hooks={"request": [self._only_own_headers]},
            ),
        )

    def _only_own_headers(self, request: Any) -> None:
        """Without what the SDK takes from the environment: organization, project, OPENAI_CUSTOM_HEADERS."""
        own = {*OF_ANY_REQUEST, *(name.lower() for name in self._headers)}
        for name in list(request.headers):
            if name.lower() not in own and not name.lower().startswith("x-stainless-"):
                del request.headers[name]
        request.headers["accept-encoding"] = "identity"

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise `Refused` for whatever the SDK makes of an answer that is none; at once, after one that never came."""
        if self._hung is not None:
            raise Refused(self._hung, by_status=False)
        try:
            yield
        except openai.APIStatusError as error:
            if 300 <= error.status_code < 400:
                place = self._hidden(error.response.headers.get("location", "nowhere"))[:200]
                text = f"HTTP {error.status_code}: redirected to {place}, which is not followed: give the URL itself"
                raise Refused(text, by_status=False) from None
            by_status = 400 <= error.status_code < 500
            raise Refused(
                self._hidden(f"HTTP {error.status_code}: {error.message}")[:300], by_status=by_status
            ) from None
        except (UserError, openai.APIConnectionError) as error:  # which of the two it is depends on the SDK's version
            why = error if isinstance(error, UserError) else error.__cause__
            if isinstance(why, LateError):
                self._hung = f"no answer within {self._limit_s:g} s"
            raise Refused(self._hung or self._hidden(str(why))[:300], by_status=False) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, RecursionError) as error:
            # The SDK does not check an answer's form: one that is no object fails wherever it is looked into.
            raise Refused(self._hidden(f"{type(error).__name__}: {error}")[:300], by_status=False) from None

    def _hidden(self, text: str) -> str:
        return without_secrets(text, self._endpoint.headers())

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def ask(self, prompt: Prompt, fields: dict[str, Any]) -> Answer:
        """Ask for a whole answer. `fields` go into the request's body as they are."""
        began = time.perf_counter()
        with self._refusals():
            if self._endpoint.needs.stream_only:
                reply = _together(self._events(prompt, fields))
            else:
                reply = self._reply({**fields, **self._endpoint.prompt(prompt, self.api)})
        elapsed_ms = (time.perf_counter() - began) * 1000
        choice = _first_choice(reply)
        usage = reply.get("usage")
        return Answer(
            text=_text(choice),
            elapsed_ms=elapsed_ms,
            prompt_tokens=token_count(usage, "prompt_tokens"),
            output_tokens=token_count(usage, "completion_tokens"),
            cached_tokens=_cached(reply),
            tokens=_tokens(choice.get("logprobs")),
        )

    def score(self, prompt: str, continuation: str, top: int) -> tuple[Token, ...]:
        """The prompt's tokens and those of a continuation that somebody else wrote, each with its log probability.

        Only for engines that tell `prompt_logprobs`; empty where the answer holds none.
        """
        fields: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
        with self._refusals():
            if self.api == "chat":
                turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": continuation}]
                fields |= {"add_generation_prompt": False, "continue_final_message": True}
                reply = self._reply({**fields, "messages": turns})
            else:
                reply = self._reply({**fields, **self._endpoint.prompt(prompt + continuation, self.api)})
        entries = reply.get("prompt_logprobs") or _first_choice(reply).get("prompt_logprobs")
        return tuple(_scored(entry) for entry in entries if entry) if isinstance(entries, list) else ()

    def stream(self, prompt: Prompt, fields: dict[str, Any]) -> StreamAnswer:
        """Ask for a stream, with usage."""
        texts: list[str] = []
        arrivals: list[float] = []
        places: list[UsagePlace] = []
        t_role: float | None = None
        t_first: float | None = None
        output_tokens = None
        with self._refusals():
            for event in self._events(prompt, fields):
                now = time.perf_counter()
                choice = _first_choice(event)
                if text := _text(choice):
                    texts.append(text)
                    arrivals.append(now * 1000)
                    t_first = t_first if t_first is not None else now
                elif t_role is None and t_first is None and _is_role(choice):
                    t_role = now
                if event.get("usage"):
                    output_tokens = token_count(event["usage"], "completion_tokens")
                    places.append(_usage_place(choice, text))
        lead = (t_first - t_role) * 1000 if t_first is not None and t_role is not None else None
        place: UsagePlace = "nowhere" if not places else places[0] if len(places) == 1 else "every event"
        return StreamAnswer("".join(texts), output_tokens, len(texts), place, lead, tuple(arrivals))

    def _reply(self, fields: dict[str, Any]) -> dict[str, Any]:
        """An answer as it came: what the SDK makes of hundreds of log probabilities takes as long as the answer."""
        reply = self._client.post(
            self._route,
            cast_to=object,
            body=self._body(fields, stream=False),
            options={"headers": self._headers.copy()},
        )
        if not isinstance(reply, dict):
            raise TypeError(f"the answer is no JSON object but {type(reply).__name__}")
        return as_chat(reply)

    def _events(self, prompt: Prompt, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A stream's events."""
        asked = {"stream_options": {"include_usage": True}, **fields, **self._endpoint.prompt(prompt, self.api)}
        body = self._body(asked, stream=True)
        events = self._client.post(
            self._route,
            cast_to=object,
            body=body,
            options={"headers": self._headers.copy()},
            stream=True,
            stream_cls=openai.Stream[object],
        )
        for event in events:
            if not isinstance(event, dict):
                raise TypeError(f"an event is no JSON object but {type(event).__name__}")
            yield as_chat(event)

    def _body(self, fields: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        return self._endpoint.body({"model": self.model, **fields, "stream": stream}, self.api)


def _together(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """What the events of a stream say, in the form of a whole answer."""
    texts: list[str] = []
    tokens: list[Any] = []
    usage: Any = None
    for event in events:
        choice = _first_choice(event)
        texts.append(_text(choice))
        told = choice.get("logprobs")
        content = told.get("content") if isinstance(told, dict) else None
        tokens += content if isinstance(content, list) else []
        usage = event.get("usage") or usage
    choice = {"text": "".join(texts), "logprobs": {"content": tokens} if tokens else None}
    return {"choices": [choice], "usage": usage}


def _first_choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _body(choice: dict[str, Any]) -> dict[str, Any]:
    """The part of a choice that carries text."""
    body = choice.get("delta", choice.get("message", choice))
    return body if isinstance(body, dict) else {}


def _text(choice: dict[str, Any]) -> str:
    """Generated text, a reasoning model's thoughts included."""
    body = _body(choice)
    thought = body.get("reasoning_content") or body.get("reasoning")
    return "".join(str(part or "") for part in (thought, body.get("content"), body.get("text")))


def _is_role(choice: dict[str, Any]) -> bool:
    return bool(_body(choice).get("role")) and not choice.get("finish_reason")


def _usage_place(choice: dict[str, Any], text: str) -> UsagePlace:
    if not choice:
        return "event of its own"
    return "last content event" if text else "finish event"


def _cached(reply: dict[str, Any]) -> int | None:
    """Cached prompt tokens as OpenAI's `usage` tells them, or llama.cpp's `timings`."""
    usage = reply.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    told = token_count(details, "cached_tokens")
    return told if told is not None else token_count(reply.get("timings"), "cache_n")


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    """Tokens with log probabilities: the form of chat, and that of completions."""
    if not isinstance(logprobs, dict):
        return ()
    content = logprobs.get("content")
    entries: list[tuple[Any, Any, Any]]
    if isinstance(content, list):
        entries = [
            (entry.get("token"), entry.get("logprob"), _listed(entry.get("top_logprobs")))
            for entry in content
            if isinstance(entry, dict)
        ]
    else:
        texts, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
        tops = logprobs.get("top_logprobs") or [None] * len(texts)
        entries = [(*entry, _listed(top)) for *entry, top in zip(texts, values, tops, strict=False)]
    return tuple(Token(str(text), _number(value), top) for text, value, top in entries if text is not None)


def _listed(top: Any) -> tuple[tuple[str, float], ...]:
    """The likeliest tokens: chat lists objects, completions map texts to values. Likeliest first."""
    pairs = []
    if isinstance(top, dict):
        pairs = [(str(text), _number(value)) for text, value in top.items()]
    elif isinstance(top, list):
        pairs = [(str(e.get("token")), _number(e.get("logprob"))) for e in top if isinstance(e, dict)]
    known = [(text, value) for text, value in pairs if value is not None]
    return tuple(sorted(known, key=lambda pair: -pair[1]))


def _scored(entry: dict[str, Any]) -> Token:
    """One place of `prompt_logprobs`: the token that stands there comes first, whether or not it is a likely one."""
    pairs = [
        (str(e.get("decoded_token")), value)
        for e in entry.values()
        if isinstance(e, dict) and (value := _number(e.get("logprob"))) is not None
    ]
    return Token(*pairs[0], tuple(sorted(pairs, key=lambda pair: -pair[1]))) if pairs else Token("", None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
