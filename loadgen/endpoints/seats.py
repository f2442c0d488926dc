"""The seats of a race: which engines there are to choose from, and where they answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from loadgen.endpoints.endpoint import Endpoint, inspect_endpoint
from loadgen.engines import Api, Engine, get_engine
from loadgen.errors import UserError

ENGINES_VARIABLE = "BAKEOFF_ENGINES_JSON"


class Seat(BaseModel):
    """An engine that the form offers."""

    model_config = ConfigDict(extra="forbid")

    name: str
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

    def inspect(self) -> Endpoint:
        """Ask the engine what it is, where traffic reaches it. Raises UserError when it does not answer."""
        return self._inspect(self.base_url)

    def inspect_here(self) -> Endpoint:
        """Ask the engine what it is, where this machine reaches it. Raises UserError when it does not answer."""
        return self._inspect(self.local_url or self.base_url)

    def _inspect(self, url: str) -> Endpoint:
        return inspect_endpoint(
            url,
            name=self.name,
            kind=self.kind,
            model=self.model,
            api=self.api,
            tokenizer=self.tokenizer,
            api_key=os.environ.get(self.api_key_env) if self.api_key_env else None,
            api_key_env=self.api_key_env,
        )


def common_api(seats: Iterable[Seat]) -> Api | None:
    """The API by which the engines' texts can be compared; None where they share none, or are not known."""
    kinds = [(seat, _kind(seat)) for seat in seats]
    known = [(seat, engine) for seat, engine in kinds if engine is not None]
    own = {seat.api or engine.default_api for seat, engine in known}
    if len(own) == 1:
        return own.pop()
    shared: list[Api] = [api for api in ("chat", "completions") if all(api in engine.apis for _, engine in known)]
    return shared[0] if shared and known else None


def _kind(seat: Seat) -> Engine | None:
    """What is known of a seat's engine: as the stack says, else as it says itself if it runs."""
    if seat.kind is not None:
        return get_engine(seat.kind)
    try:
        return seat.inspect_here().engine
    except UserError:
        return None


def seats_json(seats: Iterable[Seat]) -> str:
    """Engines as `read_seats` reads them."""
    return json.dumps([seat.model_dump(exclude_none=True) for seat in seats])


def read_seats() -> list[Seat]:
    """Engines that the form offers, from the environment. Raises UserError when the variable is malformed."""
    text = os.environ.get(ENGINES_VARIABLE, "[]")
    try:
        return [Seat.model_validate(item) for item in json.loads(text)]
    except (ValueError, ValidationError, TypeError) as error:
        raise UserError(f"{ENGINES_VARIABLE} is not a JSON list of engines: {error}") from None
