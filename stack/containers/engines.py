"""The engine services of a profile, told by their labels in compose.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.container_facts import API_LABEL, KIND_LABEL, MODEL_LABEL, OPTIONAL_LABEL, PORT_LABEL
from loadgen.settings import Settings

# Who serves after `make up` when nobody was named.
FIRST = ("llamacpp", "vllm", "sim-vllm")


def engine_services(services: Mapping[str, Mapping[str, Any]]) -> list[Seat]:
    """The engines among Compose's resolved services, by name, with their addresses in the stack's own network."""
    found = []
    for name, service in sorted(services.items()):
        labels = service.get("labels") or {}
        if KIND_LABEL in labels:
            url = f"http://{name}:{labels[PORT_LABEL]}"
            known = {"kind": labels[KIND_LABEL], "model": labels[MODEL_LABEL], "api": labels[API_LABEL]}
            found.append(Seat(name=name, base_url=url, **known))
    return found


def optional_engines(services: Mapping[str, Mapping[str, Any]], settings: Settings) -> set[str]:
    """Engines whose images are pulled for those only who name the image, or the engine in BAKEOFF_ENGINES."""
    found = {name for name, service in services.items() if OPTIONAL_LABEL in (service.get("labels") or {})}
    return found - ({"sglang"} if settings.sglang_image else set())


def only(engines: Sequence[Seat], names: str, unasked: Collection[str] = ()) -> list[Seat]:
    """Those engines that a list of names (commas between) leaves. Raises UserError.

    An empty list leaves all but those that are there only when they are asked for.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [engine.name for engine in engines]
    for name in wanted:
        if name not in known:
            raise UserError(f"BAKEOFF_ENGINES: this profile has no engine {name}; it has {', '.join(known)}")
    return [each for each in engines if (each.name in wanted if wanted else each.name not in unasked)]


def choose_engine(engines: Sequence[Seat], asked: str | None) -> Seat | None:
    """The engine to start: that of a name, or the only one of a kind; none for `none`; the usual one if unasked.

    Raises UserError for a name that no engine has.
    """
    if asked == "none" or not engines:
        return None
    by_name = {engine.name: engine for engine in engines}
    if not asked:
        return next((by_name[name] for name in FIRST if name in by_name), engines[0])
    alike = [engine for engine in engines if engine.kind == asked]
    if asked in by_name:
        return by_name[asked]
    if len(alike) == 1:
        return alike[0]
    raise UserError(f"unknown engine {asked}: this profile has {', '.join(by_name)}")
