"""One check's outcome, as the manifest keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from loadgen.manifest import ParityFact, Verdict
from loadgen.preflight.names import BLOCKING
from loadgen.preflight.sample import EngineSample

Samples = Sequence[EngineSample]
"""Of all engines that could be asked; what they are compared with is the first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What a scenario asks of its engines."""

    context_tokens: int = 0
    """Its shortest cell's longest request; cells that need more than an engine serves are left out of the race."""
    prefix_caching: bool | None = None
    """As its `serving:` block declares it; None where it does not."""


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
    """A check that only notes whether all engines have the same value."""
    return finding(name, "equal" if len(set(values.values())) <= 1 else "noted", detail, values, advice)
