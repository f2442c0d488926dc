"""What an endpoint needs of who asks it, beside what is known of its kind. It holds no secret: values are names of
variables, which are looked up when a request is made, in the process that makes it.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from loadgen.engines.base import Api
from loadgen.errors import UserError
from loadgen.validation import wrong_value

ENV = "env:"
SUFFIXES: dict[Api, str] = {"chat": "/chat/completions", "completions": "/completions", "responses": "/responses"}
"""How the routes of the APIs end; in this order, as one ends like another."""
PREFIXES = ("/", "/api/v1", "/api/v3", "/openai/v1", "/compatible-mode/v1", "/v1beta/openai", "/inference/v1")
"""Where well-known services have what is usually under /v1."""
KEY_HEADERS = ("api-key", "x-api-key")
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
OURS = frozenset({"model", "messages", "prompt", "input", "stream", *LENGTH_FIELDS})
"""Fields of a request that nobody else sets."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_put_away_names: set[str] = set()
"""Variables of this process that hold headers' values as they were given."""


class Needs(BaseModel):
    """Immutable; may be a key of a dict, and crosses to workers as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    headers: tuple[tuple[str, str], ...] = Field(
        default=(), description="further headers of every request; a value may be `env:NAME`, from the environment"
    )
    key_header: str | None = Field(default=None, description="header of the key; none: Authorization, as Bearer")
    extra_body: str = Field(default="", description="JSON object whose fields every request has; null removes one")
    api_path: str | None = Field(
        default=None, description="path in place of /v1, such as /api/v3, or a whole route; a query may follow"
    )
    max_tokens_field: str | None = Field(default=None, description="what the field of the output length is called")
    stream_options: bool | None = Field(default=None, description="whether usage is asked for with stream_options")
    stream_only: bool | None = Field(default=None, description="whether it answers by streams only")
    leave_out: tuple[str, ...] = Field(default=(), description="fields of a request that it refuses")
    reasoning_end: str | None = Field(
        default=None, min_length=1, description="what ends the reasoning inside an answer's text, such as </think>"
    )
    insecure: bool = Field(default=False, description="any certificate is taken")
    cacert: str | None = Field(default=None, description="file with the certificates of a private authority")

    @field_validator("headers", mode="before")
    @classmethod
    def _headers(cls, given: Any) -> Any:
        pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given
        found = []
        for pair in pairs:
            name, value = pair if not isinstance(pair, str) else pair.partition("=")[::2]
            if not isinstance(name, str) or not _TOKEN.fullmatch(name) or not isinstance(value, str) or not value:
                raise ValueError("give NAME=VALUE or NAME=env:VARIABLE")
            if name.lower() in ("host", "content-length", "content-type", "transfer-encoding", "accept-encoding"):
                raise ValueError(f"{name} is set by the request itself")
            found.append((name, value if value.startswith(ENV) else ENV + _put_away(name, value)))
        return tuple(found)

    @field_validator("extra_body", mode="before")
    @classmethod
    def _extra_body(cls, given: Any) -> Any:
        try:
            fields = json.loads(given) if isinstance(given, str) and given else given or {}
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise ValueError('must be a JSON object, such as {"top_k": 1}')
        if taken := OURS & set(fields):
            raise ValueError(f"{', '.join(sorted(taken))}: set by the measurement itself")
        return json.dumps(fields, separators=(",", ":"), sort_keys=True) if fields else ""

    @field_validator("api_path")
    @classmethod
    def _api_path(cls, given: str | None) -> str | None:
        if given is None:
            return None
        if not given.isascii() or not given.isprintable() or " " in given or "#" in given or "://" in given:
            raise ValueError("give a path such as /api/v3 or /openai/deployments/x/chat/completions?api-version=1")
        return "/" + given.lstrip("/")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What differs from the ordinary."""
        return self.told.items()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values are sent, but for values that were given themselves."""
        named = (value.removeprefix(ENV) for _, value in self.headers)
        return tuple(dict.fromkeys(name for name in named if name not in _put_away_names))

    @property
    def told(self) -> dict[str, Any]:
        """What differs from the ordinary, for the manifest and for people."""
        return self.model_dump(exclude_defaults=True)

    def route(self, api: Api, usual: str) -> str:
        """Path and query of an API's requests; `usual` is where its kind has it."""
        if self.api_path is None:
            return usual
        path, mark, query = self.api_path.partition("?")
        path = path.rstrip("/")
        suffix = next((suffix for suffix in SUFFIXES.values() if path.endswith(suffix)), "")
        return path.removesuffix(suffix) + SUFFIXES[api] + mark + query

    @property
    def route_api(self) -> Api | None:
        """The API that a whole route is of."""
        path = (self.api_path or "").partition("?")[0].rstrip("/")
        return next((api for api, suffix in SUFFIXES.items() if path.endswith(suffix)), None)

    def body(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request, but the prompt, as the endpoint takes them."""
        made = dict(fields)
        if self.max_tokens_field is not None:
            lengths = [made.pop(name) for name in LENGTH_FIELDS if name in made]
            made |= dict.fromkeys((self.max_tokens_field,), *lengths) if lengths else {}
        if self.stream_options is False or not made.get("stream", True):
            made.pop("stream_options", None)
        for name in self.leave_out:
            made.pop(name, None)
        for name, value in (json.loads(self.extra_body) if self.extra_body else {}).items():
            made[name] = value
            if value is None:
                del made[name]
        return made

    def request_headers(self, key: str | None) -> dict[str, str]:
        """Headers with their values. Raises UserError: a variable is not set, or holds what no header may hold."""
        found = {}
        if key:
            found = {self.key_header: key} if self.key_header else {"Authorization": f"Bearer {key}"}
        for name, reference in self.headers:
            variable = reference.removeprefix(ENV)
            value = os.environ.get(variable)
            if not value:
                raise UserError(f"Header {name}: the environment variable {variable} is not set here.")
            if not (value.isascii() and value.isprintable()):
                raise UserError(f"Header {name}: {variable} holds a line break or another unprintable character.")
            found = {known: old for known, old in found.items() if known.lower() != name.lower()} | {name: value}
        return found

    def trust(self, context: ssl.SSLContext) -> None:
        """Have a context for TLS take the certificates that are to be taken. Raises UserError: `cacert` holds none."""
        if self.cacert is not None:
            try:
                context.load_verify_locations(self.cacert)
            except OSError as error:
                raise UserError(f"--cacert {self.cacert}: no certificates can be read from it: {error}") from None
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> Self:
        """From what a person gave, leaving out what is None. Raises UserError that begins with `where`."""
        try:
            return cls.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            name = option_name(str(first["loc"][0])) if first["loc"] else "options"
            raise UserError(f"{where}{name}: {wrong_value(first)}") from None


class Given(Needs):
    """All that a person may say of an endpoint, by the names of the options: in `--engine`, a scenario, a web form."""

    kind: str | None = None
    model: str | None = None
    api: Api | None = None
    tokenizer: str | None = None
    api_key_env: str | None = None
    metrics: str | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values are sent: the key's, and those of headers."""
        return with_key(self.api_key_env, super().variables)


class Placed(Given):
    """An endpoint in a scenario's `engines:`."""

    url: str


def with_key(variable: str | None, others: tuple[str, ...]) -> tuple[str, ...]:
    """The key's variable, where there is one, before others."""
    return tuple(dict.fromkeys((variable, *others))) if variable is not None else others


def option_name(field: str) -> str:
    """What a field of `Given` is called where a person says it, without dashes before it."""
    return field.replace("_", "-").replace("headers", "header")


KEYS = "|".join(option_name(name) for name in Given.model_fields if name != "leave_out")


def parse_given(text: str) -> tuple[str, dict[str, Any]]:
    """What stands before the first `,KEY=`, and what follows; JSON may hold commas of its own."""
    first, *rest = re.split(rf",(?=(?:{KEYS})=)", text)
    found: dict[str, Any] = {}
    for item in rest:
        key, _, value = item.partition("=")
        if key == "header":
            found.setdefault("headers", []).append(value)
        else:
            found[key.replace("-", "_")] = value == "true" if value in ("true", "false") else value
    return first, found


def without_values(words: Iterable[str]) -> list[str]:
    """A command line without the values of headers that stand in it."""
    found: list[str] = []
    for word in words:
        name, mark, value = word.partition("=")
        if found and found[-1] == "--header" and mark and not value.startswith(ENV):
            found.append(f"{name}=...")
        else:
            found.append(re.sub(rf"((?:^--|,)header=[^=,]+=)(?!{ENV}).+?(?=,(?:{KEYS})=|$)", r"\1...", word))
    return found


def _put_away(header: str, value: str) -> str:
    """Keep a header's value in the environment, where workers find it and no file or page does; the variable's name."""
    stem = "BAKEOFF_HEADER_" + re.sub(r"[^A-Z0-9]", "_", header.upper())
    names = (stem if number == 1 else f"{stem}_{number}" for number in range(1, 1000))
    name = next(name for name in names if os.environ.get(name, value) == value)
    os.environ[name] = value
    _put_away_names.add(name)
    return name
