"""What differs between two runs besides their figures, and which of it forbids a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from loadgen.client.floor import floor_words
from loadgen.errors import UserError
from loadgen.message import mark, say
from loadgen.presentation.text import command_line, gibibytes, plain
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.serving import asked_of

Level = Literal["refuse", "warn", "info"]
HOST = ("cpu", "cpus_usable", "memory_bytes", "os", "python")
SHAPE = ("step", "trace", "conversation", "prefixes")
"""Keys of a scenario, or of its load, that make another load of the same cell."""
SCENARIO = ("slo", "seed", "requests", "warmup_requests", "repeats", "between_blocks", "timeouts")
NOT_SETTINGS = frozenset(
    {"pid", "started_unix_s", "base_url", "serving", "state", "argv", "packages", "container", "log"}
)
"""Launch facts that are no settings, or have rows of their own."""


OF_ONE_START = frozenset({"created", "permission"})
"""Keys of a model list's entries that tell when an engine began, and rights that it made up then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same."""

    key: str
    """What `--accept` calls it, where it forbids a comparison."""
    level: Level
    what: str
    a: str
    b: str

    def sentence(self) -> str:
        """As a line."""
        return say("{what}: A has {a}, B has {b}", what=self.what, a=self.a, b=self.b)


def differences(
    a: Manifest, b: Manifest, engine_a: EngineFacts | None, engine_b: EngineFacts | None
) -> list[Difference]:
    """Everything that differs, what forbids the comparison first."""
    found = [
        *_of_load(a.scenario, b.scenario),
        *(_of_engines(engine_a, engine_b) if engine_a is not None and engine_b is not None else ()),
        *_of_machines(a, b),
        *_of_settings(a, b, engine_a, engine_b),
        *_of_runs(a, b),
    ]
    return sorted(found, key=lambda row: ("refuse", "warn", "info").index(row.level))


def check(found: Sequence[Difference], accepted: Sequence[str]) -> None:
    """Raise UserError unless all that forbids the comparison is accepted, or where `accepted` names what never does."""
    refusing = {row.key: row for row in found if row.level == "refuse"}
    unknown = [key for key in accepted if key not in REFUSING]
    if unknown:
        raise UserError(f"--accept {unknown[0]}: there is no such difference; there are {', '.join(REFUSING)}.")
    left = [row for key, row in refusing.items() if key not in accepted]
    if left:
        lines = "\n".join(f"  {row.sentence()} (--accept {row.key})" for row in left)
        raise UserError(
            f"These two runs did not measure the same thing:\n{lines}\n"
            "A difference in figures would say nothing about the engines. Accept what you know not to matter."
        )


REFUSING = ("model", "context-length", "prompts", "api", "shared-prefix", "arrival")


def _row(key: str, level: Level, what: str, a: Any, b: Any) -> list[Difference]:
    return [] if a == b else [Difference(key, level, what, plain(a), plain(b))]


def _of_load(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Of the scenario, what its cells do not tell."""
    rows = _row("shared-prefix", "refuse", say("shared prefix, tokens"), *_both(a, b, "shared_prefix_tokens", 0))
    load_a, load_b = _mapping(a.get("load")), _mapping(b.get("load"))
    if load_a.get("rate") or load_b.get("rate"):
        rows += _row("arrival", "refuse", say("arrival of requests"), *_both(load_a, load_b, "arrival", "poisson"))
    for key in SHAPE:
        shapes = (load_a.get(key) or a.get(key) or None, load_b.get(key) or b.get(key) or None)
        rows += _row("arrival", "refuse", say("shape of the load: {key}", key=key), *shapes)
    for key in SCENARIO:
        rows += _row("scenario", "warn", say("scenario: {key}", key=key), a.get(key), b.get(key))
    rows += _row("scenario", "warn", say("scenario: {key}", key="starts"), *_both(a, b, "starts", 1))
    rows += _row("scenario", "warn", say("scenario: {key}", key="placement"), *_both(a, b, "placement", "turns"))
    return rows


def _of_engines(a: EngineFacts, b: EngineFacts) -> list[Difference]:
    return [
        *_row("model", "refuse", say("model"), a.model, b.model),
        *_row("context-length", "refuse", say("context length, tokens"), a.context_length, b.context_length),
        *_row("prompts", "refuse", say("how prompts are made"), *_prompts(a.prompts, b.prompts)),
        *_row("api", "refuse", say("API"), a.api, b.api),
        *_row("kind", "warn", say("kind of engine"), a.kind, b.kind),
        *_row("version", "info", say("version of the engine"), a.version, b.version),
    ]


def _prompts(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How both made prompts. A tokenizer is the same by its digest, wherever its file lay."""
    known = all(side.get("tokenizer_sha256") for side in (a, b))
    return [{key: value for key, value in side.items() if not known or key != "tokenizer"} for side in (a, b)]


def _of_machines(a: Manifest, b: Manifest) -> list[Difference]:
    rows = []
    for key in HOST:
        show = gibibytes if key.endswith("_bytes") else plain
        values = [show(value) for value in _both(a.host, b.host, key)]
        rows += _row("host", "warn", say("host: {key}", key=key.removesuffix("_bytes")), *values)
    rows += _row("gpu", "warn", say("GPUs"), *(_gpus(side) for side in (a, b)))
    rows += _row("stack", "warn", say("stack"), *_both(a.stack, b.stack, "runtime", say("endpoints that ran already")))
    if a.floor is None or b.floor is None or a.floor != b.floor:
        floors = (floor_words(a.floor), floor_words(b.floor))
        rows.append(Difference("floor", "warn", say("the load generator's own error"), *floors))
    return rows


def _gpus(manifest: Manifest) -> list[str]:
    """Names and drivers; serial numbers do not matter."""
    return [f"{gpu.get('name')} (driver {gpu.get('driver')})" for gpu in manifest.host.get("gpus") or []]


def _of_settings(
    a: Manifest, b: Manifest, engine_a: EngineFacts | None, engine_b: EngineFacts | None
) -> list[Difference]:
    """How engine and load generator were set up."""
    pairs = ((a, engine_a), (b, engine_b))
    asked = [asked_of(m.scenario, engine.name if engine is not None else "") for m, engine in pairs]
    rows = _each("serving", mark("serving setting: {name}"), *asked)
    launches = [facts.launch if facts is not None else {} for facts in (engine_a, engine_b)]
    argv = [command_line(launch.get("argv")) for launch in launches]
    rows += _row("launch", "warn", say("command line of the engine"), *argv)
    settings = [{k: _lasting(v) for k, v in launch.items() if k not in NOT_SETTINGS} for launch in launches]
    rows += _each("launch", mark("engine: {name}"), *settings)
    rows += _each(
        "packages", mark("engine's package: {name}"), *(_mapping(launch.get("packages")) for launch in launches)
    )
    rows += _each("packages", mark("load generator's package: {name}"), a.packages, b.packages)
    commits = [f"{m.git.get('commit')}{' with changes' if m.git.get('dirty') else ''}" for m in (a, b)]
    rows += _row("git", "warn", say("commit of the load generator"), *commits)
    return rows


def _lasting(value: Any) -> Any:
    """A launch fact without what a model list has anew at every start."""
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in OF_ONE_START}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _of_runs(a: Manifest, b: Manifest) -> list[Difference]:
    """Runs that did not end well; also where both did not."""
    if a.status == b.status == "complete":
        return []
    return [Difference("status", "warn", say("how the run ended"), say(a.status), say(b.status))]


def _each(key: str, what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    rows = []
    for name in dict.fromkeys([*a, *b]):
        rows += _row(key, "warn", say(what, name=name), a.get(name), b.get(name))
    return rows


def _both(a: Mapping[str, Any], b: Mapping[str, Any], key: str, default: Any = None) -> tuple[Any, Any]:
    return a.get(key, default), b.get(key, default)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
