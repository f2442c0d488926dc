"""An endpoint under test: where it is, what it serves, and how its tokens are counted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import ssl
from collections.abc import Generator, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3 import BaseHTTPResponse, exceptions

from loadgen.endpoints.hints import no_answer, no_right, wants_tls
from loadgen.endpoints.tokenizer import find_tokenizer
from loadgen.engines import ENGINES, GENERIC, Api, Engine, get_engine
from loadgen.engines.needs import KEY_HEADERS, PREFIXES, SUFFIXES, Needs
from loadgen.errors import UserError, without_secrets
from loadgen.record import REJECTIONS, whole_text
from loadgen.stream.bounded import BoundedPool, TooLargeError, parts
from loadgen.stream.http_parser import is_compressed
from loadgen.stream.responses import ENDS as RESPONSE_ENDS

TIMEOUT_S = 30.0
MAX_ANSWER = 1 << 20
MAX_WHOLE_ANSWER = 16 << 20
"""Gateways list thousands of models, and engines tell as many figures."""
ENDS = (b"[DONE]", *(f'"type":{blank}"{kind}"'.encode() for kind in RESPONSE_ENDS for blank in ("", " ")))
"""By what a stream is known to be over, even if its connection is held."""
MAX_KEPT = 256
"""Connections that are kept: as many as are asked by at once."""
NOTHING = Needs()
NOT_OF_RESPONSES = ("stream_options", "min_tokens", "ignore_eos")
INSPECT_LIMIT_S = 10.0
"""Longest wait for what an endpoint tells of itself."""
ANSWER_LIMIT_S = 120.0
"""Longest wait for a generated answer that is not timed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine's address, as the user gave it or the stack knows it."""

    name: str
    kind: str
    base_url: str
    model: str
    api: Api
    version: str | None = None
    context_length: int | None = None
    tokenizer: str | None = None
    """Folder or file of the model's tokenizer, where the user gave one."""
    api_key: str | None = dataclasses.field(default=None, repr=False)
    api_key_env: str | None = None
    """Name of the environment variable that the key is from, where it is from one."""
    needs: Needs = NOTHING

    @property
    def engine(self) -> Engine:
        """What is known of this kind of engine."""
        return get_engine(self.kind)

    def route(self, api: Api | None = None) -> str:
        """Path and query of its own API's requests, or of another's."""
        api = api or self.api
        return self.needs.route(api, self.engine.paths[api])

    def fields(self, output_tokens: int) -> dict[str, Any]:
        """All fields of a streaming request except the prompt."""
        return self.body(self.engine.request_fields(self.model, output_tokens))

    def body(self, fields: Mapping[str, Any], api: Api | None = None) -> dict[str, Any]:
        """Fields of a request except the prompt, as it takes them."""
        made = dict(fields)
        if (api or self.api) == "responses":
            made = {name: value for name, value in made.items() if name not in NOT_OF_RESPONSES}
            if "max_tokens" in made:
                made["max_output_tokens"] = made.pop("max_tokens")
        return self.needs.body(made)

    def prompt(self, text: Any, api: Api | None = None) -> dict[str, Any]:
        """The prompt's field of a request."""
        api = api or self.api
        if api == "chat":
            return {"messages": [{"role": "user", "content": text}]}
        return {"input" if api == "responses" else "prompt": text}

    def headers(self) -> dict[str, str]:
        """Key and further headers of its requests. Raises UserError: a variable is not set."""
        return self.needs.request_headers(self.api_key)

    def client(self) -> Client:
        """For requests that are not measured. Raises UserError."""
        return Client(self.base_url, self.api_key, self.needs)


def normalise_url(url: str) -> str:
    """Return `http(s)://host[:port][/prefix]` without a trailing slash or `/v1`.

    Raises:
        UserError: it is not an http(s) URL.
    """
    url = url.strip()
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        ok = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port or an IPv6 address that is none
        ok = False
    if ok and "@" in parts.netloc:
        # Not shown: it holds a password.
        raise UserError("A URL with a user name or password is not used. Give the API key with --api-key-env.")
    # Characters that would have to be escaped in a request's head are refused, not guessed at.
    plain = url.isascii() and url.isprintable() and " " not in url
    if not ok or not plain or parts.query or parts.fragment:
        raise UserError(f"{url!r} is not a usable URL. Give one such as http://127.0.0.1:8000 or https://host/prefix.")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def split_url(url: str) -> tuple[str, str | None]:
    """A base URL, and the path of the API where `url` is that of a whole route or has a query. Raises UserError."""
    address, mark, query = url.strip().partition("?")
    route = any(address.rstrip("/").endswith(suffix) for suffix in SUFFIXES.values())
    base = normalise_url(address)
    if not route and not mark:
        return base, None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    return f"{parts.scheme}://{parts.netloc}", parts.path + mark + query


class UnreachableError(UserError):
    """No answer of any kind came, so that asking for something else is of no use."""


class LateError(UnreachableError):
    """No whole answer came in time."""


class RejectedError(UserError):
    """The server is there, and has too much to do to answer."""


class Client:
    """Plain blocking requests to one endpoint, for everything that is not measured. No proxy is used."""

    def __init__(self, base_url: str, api_key: str | None = None, needs: Needs = NOTHING) -> None:
        """Raises UserError: a header's variable is not set, or a file of certificates is none."""
        self.base_url = base_url
        self._api_key, self._needs = api_key, needs
        self._headers = needs.request_headers(api_key)
        if needs.insecure:
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)
        self._pool = BoundedPool(
            ssl_context=tls_context(needs) if base_url.startswith("https:") else None, maxsize=MAX_KEPT
        )

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
        """Status and text of the answer, a stream's as it came, up to its `[DONE]`; a refusal's without our secrets.

        Raises `UnreachableError`.
        """
        answer = self._send("POST", path, body, timeout_s)
        data = bytearray()
        # What came before it broke off is what it says.
        with (
            contextlib.suppress(exceptions.HTTPError, TooLargeError),
            contextlib.closing(parts(answer, MAX_ANSWER)) as coming,
        ):
            for part in coming:
                data += part
                if any(mark in data[-len(part) - 32 :] for mark in ENDS):
                    break
        text = data.decode("utf-8", "replace").strip()
        return answer.status, text if 200 <= answer.status < 300 else self.hidden(text)

    def hidden(self, text: str) -> str:
        """A text of the server's without the key and the headers' values."""
        return without_secrets(text, self._headers)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the JSON answer.

        Raises:
            UserError: nothing answers (`UnreachableError`), the status is not 2xx (`RejectedError`: it is busy), or
                the answer is not JSON.
        """
        url, (response, data) = self.base_url + path, self._whole(method, path, body, timeout_s)
        text = data.decode("utf-8", "replace").strip()
        if not 200 <= response.status < 300:
            hint = self._hint(response.status)
            detail = self.hidden(response.headers.get("Location") or text)[:300] or "no detail"
            kind = RejectedError if response.status in REJECTIONS.values() else UserError
            raise kind(f"{method} {url}: HTTP {response.status}: {detail}{f'. {hint}' if hint else ''}")
        try:
            return json.loads(data)
        except RecursionError:
            raise UserError(f"{method} {url}: the answer is JSON that is nested too deeply.") from None
        except ValueError:
            raise UserError(f"{method} {url}: the answer is not JSON: {self.hidden(text)[:120]!r}") from None

    def open(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> BaseHTTPResponse:
        """The answer's head; its body is read by `read`. `headers` are all that are sent.

        Raises UserError where none came, or only what nobody asked for: `UnreachableError`, `LateError`.
        """
        with self._failures(method, url, timeout_s):
            answer = self._pool.ask(method, url, timeout_s, headers, body)
        if is_compressed(coding := answer.headers.get("Content-Encoding", "")):
            answer.close()
            raise UserError(f"{method} {url}: the answer is compressed ({self.hidden(coding)[:40]}): not asked for.")
        return answer

    def read(
        self, answer: BaseHTTPResponse, method: str, url: str, timeout_s: float, most: int | None = None
    ) -> Generator[bytes]:
        """The body of an answer as it comes. Raises UserError: it is late, or has more than `most` bytes."""
        with self._failures(method, url, timeout_s):
            yield from parts(answer, MAX_WHOLE_ANSWER if most is None else most)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> BaseHTTPResponse:
        """The answer's head. Raises UserError where none came."""
        data, headers = None, {**self._headers, "Accept-Encoding": "identity"}
        if body is not None:
            data, headers = json.dumps(body).encode(), {**headers, "Content-Type": "application/json"}
        return self.open(method, self.base_url + path, data, headers, timeout_s)

    def _whole(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[BaseHTTPResponse, bytes]:
        """The answer's head and its body. Raises UserError where one of them did not come."""
        answer = self._send(method, path, body, timeout_s)
        return answer, b"".join(self.read(answer, method, self.base_url + path, timeout_s))

    def _hint(self, status: int) -> str:
        """What to do about an answer of this status; empty where it says nothing."""
        if status in (401, 403):
            return no_right(self._api_key, self._needs)
        return wants_tls(self.base_url) if status == 400 else ""

    @contextlib.contextmanager
    def _failures(self, method: str, url: str, timeout_s: float) -> Iterator[None]:
        """Raise UserError for all that may become of an answer."""
        try:
            yield
        except TooLargeError:
            raise UserError(f"{method} {url}: the answer has no end.") from None
        except (exceptions.SSLError, exceptions.NewConnectionError, exceptions.ProtocolError) as error:
            raise UnreachableError(no_answer(self.base_url, error)) from None
        except exceptions.TimeoutError:
            raise LateError(f"{method} {url}: no answer within {timeout_s:g} s.") from None
        except exceptions.HTTPError as error:
            raise UserError(f"{method} {url}: {self.hidden(str(error))}") from None

    def try_text(self, path: str) -> str | None:
        """Return the text of a GET's answer, or None when the route is not there."""
        try:
            response, data = self._whole("GET", path, None, INSPECT_LIMIT_S)
        except UserError:
            return None
        return data.decode("utf-8", "replace") if response.status == 200 else None

    def try_call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any | None:
        """Return the JSON answer, or None when the route is not there."""
        try:
            return self.call(method, path, body, timeout_s=INSPECT_LIMIT_S)
        except UserError:
            return None


def inspect_endpoint(
    base_url: str,
    *,
    name: str | None = None,
    kind: str | None = None,
    model: str | None = None,
    api: Api | None = None,
    tokenizer: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    needs: Needs = NOTHING,
) -> Endpoint:
    """Ask an endpoint what it is; what the user gave is taken as given.

    Raises:
        UserError: it does not answer, serves several models and none was named, or cannot do the API asked for.
    """
    base_url = normalise_url(base_url)
    entries, model_error = _models(Client(base_url, api_key, needs), kind, needs)
    if not entries and api_key and needs.key_header is None and "HTTP 40" in (model_error or ""):
        for other in KEY_HEADERS:
            styled = needs.model_copy(update={"key_header": other})
            if found_entries := _models(Client(base_url, api_key, styled), kind, styled)[0]:
                entries, needs = found_entries, styled
                break
    client = Client(base_url, api_key, needs)
    found = kind or next((e.kind for e in ENGINES.values() if any(e.is_named_by(entry) for entry in entries)), GENERIC)
    engine = get_engine(found)
    if api is not None and api not in engine.apis:
        raise UserError(f"{found} at {base_url} does not serve {api}; use --api {engine.apis[0]}.")
    listed = [str(entry["id"]) for entry in entries if "id" in entry]
    names = [name for name in listed if not set("*?[") & set(name)]
    deployment = re.search(r"/deployments/([^/?]+)", f"{base_url}{needs.api_path or ''}")
    if model is None and not names and deployment:
        model = deployment[1]
    if model is None:
        if listed and not names:
            raise UserError(f"{base_url} lists patterns of models only ({', '.join(listed)}): name one with --model.")
        if not names:
            raise UserError(model_error or f"{base_url} lists no model. Name one with --model.")
        if len(names) > 1:
            raise UserError(f"{base_url} serves {len(names)} models ({', '.join(names)}): choose with --model.")
        model = names[0]
    elif listed and not any(fnmatchcase(model, name) for name in (*listed, *names)) and engine.checks_model_name:
        raise UserError(f"{base_url} does not serve {model!r}. It serves: {', '.join(names)}.")
    entry = next((entry for entry in entries if entry.get("id") == model), entries[0] if entries else {})
    reply = client.try_call("GET", engine.version_path) if engine.version_path else None
    version = engine.version(reply) if isinstance(reply, dict) else None
    return Endpoint(
        name=name or found,
        kind=found,
        base_url=base_url,
        model=whole_text(model),
        api=api or needs.route_api or engine.default_api,
        version=None if version is None else whole_text(version),
        context_length=engine.context_length(entry),
        tokenizer=None if tokenizer is None else str(find_tokenizer(tokenizer)),
        api_key=api_key,
        api_key_env=api_key_env if api_key else None,
        needs=needs,
    )


def _models(client: Client, kind: str | None, needs: Needs) -> tuple[list[dict[str, Any]], str | None]:
    """Model list, by the first of the known routes that answers; and why there is none."""
    usual = [get_engine(kind).models_path] if kind else ["/v1/models", "/models"]
    own = needs.route("completions", "").partition("?")[0].removesuffix("/completions")
    paths = [f"{own}/models", *usual] if needs.api_path is not None else usual
    paths += [f"{prefix}/models" for prefix in PREFIXES[1:]] if kind is None and needs.api_path is None else []
    problem = None
    for path in paths:
        try:
            reply = client.call("GET", path, timeout_s=INSPECT_LIMIT_S)
        except UnreachableError:
            raise
        except UserError as error:
            problem = problem or str(error).rstrip(".")
            continue
        data = reply.get("data") if isinstance(reply, dict) else None
        if isinstance(data, list):
            return [entry for entry in data if isinstance(entry, dict)], None
        problem = problem or f"{client.base_url}{path}: not a model list"
    hint = "Is this the address of an OpenAI-compatible server? If it is, name the model with --model."
    return [], f"{problem}. {hint}"


def tls_context(needs: Needs) -> ssl.SSLContext:
    """For connections that are not timed; the timed ones follow the same rules. Raises UserError.

    The system's authorities, as OpenSSL's own SSL_CERT_FILE has them, and those of `cacert`.
    """
    context = ssl.create_default_context()
    needs.trust(context)
    return context
