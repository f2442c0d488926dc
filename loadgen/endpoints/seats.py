"""The seats of a race: which engines there are to choose from, and where they answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from loadgen.endpoints.endpoint import ANSWER_LIMIT_S, NOTHING, Endpoint, inspect_endpoint, normalise_url, split_url
from loadgen.endpoints.settle import Tell, settle
from loadgen.engines import GENERIC, Api, get_engine
from loadgen.engines.needs import SUFFIXES, Needs, option_name, with_key
from loadgen.errors import UserError
from loadgen.validation import Name

logger = logging.getLogger(__name__)

OWN = ("kind", "model", "api", "tokenizer", "api_key_env", "metrics")
"""Options of an endpoint that are not of its needs."""
SLOW_S = 3.0
ENGINES_VARIABLE = "BAKEOFF_ENGINES_JSON"


class Seat(BaseModel):
    """An engine that the form offers."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    base_url: str
    """Where traffic reaches it."""
    local_url: str | None = None
    """Where this machine reaches it, when that is another address: containers have a network of their own."""
    kind: str | None = None
    model: str | None = None
    api: Api | None = None
    tokenizer: str | None = None
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key."""
    metrics: str | None = None
    """Where its metrics page is, when it is not where its kind has it: KsanaLLM's is its exporter's."""
    needs: Needs = NOTHING
    variant_of: Name | None = None
    """The stack's engine that it is a setting of, where it has a name of its own."""
    twin_of: Name | None = None
    """The stack's engine that it is a second seat of; it races only where it is named."""

    @property
    def stack_name(self) -> str:
        """What the stack calls the engine."""
        return self.variant_of or self.name

    def inspect(self, tell: Tell = logger.info) -> Endpoint:
        """Ask the engine what it is, where traffic reaches it, and what it needs; `tell` gets a line for each such.

        Raises UserError when it does not answer.
        """
        return self._inspect(self.base_url, tell)

    def inspect_here(self, tell: Tell = logger.info) -> Endpoint:
        """The same, where this machine reaches it. Raises UserError when it does not answer."""
        return self._inspect(self.local_url or self.base_url, tell)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values it is sent."""
        return with_key(self.api_key_env, self.needs.variables)

    def headers(self) -> dict[str, str]:
        """Key and further headers of its requests. Raises UserError: a variable is not set."""
        return self.needs.request_headers(self._key())

    def settings(self) -> Iterator[str]:
        """What was given for it, as `KEY=VALUE`."""
        own = {name: getattr(self, name) for name in OWN}
        for name, value in {**own, **self.needs.told}.items():
            for each in ("=".join(pair) for pair in value) if name == "headers" else [value]:
                text = str(each).lower() if isinstance(each, bool) else each
                if each is not None:
                    yield f"{option_name(name)}={text}"

    def _key(self) -> str | None:
        return os.environ.get(self.api_key_env) if self.api_key_env else None

    def _inspect(self, url: str, tell: Tell) -> Endpoint:
        with _slow_told(lambda: tell(f"waiting for {url} to answer ({ANSWER_LIMIT_S:g} s at most for an answer)")):
            found = inspect_endpoint(
                url,
                name=self.name,
                kind=self.kind,
                model=self.model,
                api=self.api,
                tokenizer=self.tokenizer,
                api_key=self._key(),
                api_key_env=self.api_key_env,
                needs=self.needs,
            )
            return settle(found, fixed_api=self.api is not None, tell=tell)


@contextlib.contextmanager
def _slow_told(tell: Callable[[], None]) -> Iterator[None]:
    """Say once what is waited for, where it takes longer than a person would watch in silence."""
    timer = threading.Timer(SLOW_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def seat_of(name: str, url: str, given: Mapping[str, Any], where: str) -> Seat:
    """An endpoint as a person gives it, by the names of its options. Raises UserError that begins with `where`.

    The URL may be that of a whole route.
    """
    base_url, path = split_url(url)
    own: dict[str, Any] = {key: value for key, value in given.items() if key in OWN and value is not None}
    needs = {key: value for key, value in given.items() if key not in OWN and value is not None}
    if own.get("kind") is not None:
        get_engine(own["kind"])
    if own.get("api") not in (None, *SUFFIXES):
        raise UserError(f"{where}api: must be chat, completions or responses, not {own['api']!r}")
    read_api_key(own.get("api_key_env"), f"{where}api-key-env")
    if own.get("metrics") is not None:
        own["metrics"] = page_url(own["metrics"], f"{where}metrics")
    needs.setdefault("api_path", path)
    return Seat(name=name, base_url=base_url, needs=Needs.of(needs, where), **own)


def page_url(url: str, option: str) -> str:
    """Where a metrics page is: `/metrics`, where no path is given. Raises UserError that begins with the option."""
    try:
        base = normalise_url(url)
    except UserError as error:
        raise UserError(f"{option}: {error}") from None
    return base if urlsplit(base).path else f"{base}/metrics"


def read_api_key(variable: str | None, option: str = "--api-key-env") -> str | None:
    """The key that an environment variable holds. Raises UserError when it is not set, or no key."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"{option} {variable}: that environment variable is not set.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{option} {variable}: that key holds a line break or another unprintable character.")
    return key


def common_api(seats: Iterable[Seat]) -> Api | None:
    """The API by which the engines' texts can be compared; None where they share none, or are not known."""
    known = [found for found in map(_apis, seats) if found]
    own = {found[0] for found in known}
    if len(own) == 1:
        return own.pop()
    return next((api for api in SUFFIXES if known and all(api in found for found in known)), None)


def _apis(seat: Seat) -> tuple[Api, ...]:
    """A seat's own API, and others that it has: as the stack says, else as it says itself if it runs."""
    if seat.kind is not None and seat.kind != GENERIC:
        engine = get_engine(seat.kind)
        return (seat.api or engine.default_api, *engine.apis)
    try:
        found = seat.inspect_here()
    except UserError:
        return ()
    usual = found.needs.route_api is None and found.api == found.engine.default_api
    return (found.api, *(found.engine.apis if usual else ()))


def seats_json(seats: Iterable[Seat]) -> str:
    """Engines as `read_seats` reads them."""
    return json.dumps([seat.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for seat in seats])


def read_seats() -> list[Seat]:
    """Engines that the form offers, from the environment. Raises UserError when the variable is malformed."""
    text = os.environ.get(ENGINES_VARIABLE, "[]")
    try:
        return [Seat.model_validate(item) for item in json.loads(text)]
    except (ValueError, ValidationError, TypeError) as error:
        raise UserError(f"{ENGINES_VARIABLE} is not a JSON list of engines: {error}") from None
