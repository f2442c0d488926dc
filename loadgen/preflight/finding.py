"""One check's outcome, as the manifest keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from loadgen.engines.serving import Block
from loadgen.message import joined, say
from loadgen.preflight.names import BLOCKING
from loadgen.preflight.sample import EngineSample
from loadgen.runs.manifest import ParityFact, Verdict

NOT_TOLD = say("not told")
NOT_ANSWERED = say("not answered")
CANNOT_TELL = say("cannot tell")
UNKNOWN: frozenset[str] = frozenset({NOT_TOLD, NOT_ANSWERED, CANNOT_TELL})
"""Values of engines of which a check learned nothing."""

ON_PURPOSE = say("the scenario sets it apart on purpose: that is what is asked")
Samples = Sequence[EngineSample]
"""Of all engines that could be asked; what they are compared with is the first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What a scenario asks of its engines."""

    context_tokens: int = 0
    """Its shortest cell's longest request; cells that need more than an engine serves are left out of the race."""
    prefix_caching: bool | None = None
    """As its `serving:` block declares it; None where it does not."""
    allow_short_output: bool = False
    kv_cache_tokens: int | None = None
    """As its `serving:` block asks for it."""
    own: Mapping[str, Block] = dataclasses.field(default_factory=dict)
    """The serving settings of engines that have a block of their own."""

    def asked_of(self, samples: Samples, setting: Literal["prefix_caching", "kv_cache_tokens"]) -> dict[str, Any]:
        """What each engine is to have; None where nothing is declared."""
        common = getattr(self, setting)
        names = [sample.engine for sample in samples]
        return {name: self.own[name].get(setting) if name in self.own else common for name in names}


def finding(name: str, verdict: Verdict, detail: str, values: Mapping[str, object], advice: str = "") -> ParityFact:
    """One outcome. A check that blocks must be listed in `names`, or nobody could accept it."""
    if verdict == "blocking" and name not in BLOCKING:
        raise AssertionError(f"{name} is not listed as blocking")
    return ParityFact(
        check=name.replace("-", " "),
        equal=verdict == "equal",
        detail=detail,
        values={engine: str(value) for engine, value in values.items()},
        name=name,
        verdict=verdict,
        advice="" if verdict == "equal" else advice,
    )


def compared(name: str, values: Mapping[str, object], detail: str, advice: str = "") -> ParityFact:
    """A check that only notes whether all engines have the same value, as far as it is known."""
    known = set(values.values()) - UNKNOWN
    verdict: Verdict = "noted" if len(known) > 1 else "equal" if known and known == set(values.values()) else "unknown"
    return finding(name, verdict, detail, values, COULD_NOT_BE_TOLD if verdict == "unknown" else advice)


def all_of(engines: Iterable[str]) -> str:
    """Some engines in words."""
    return joined("{some} and {last}", engines)


COULD_NOT_BE_TOLD = say("an engine does not show it: look at its settings")
