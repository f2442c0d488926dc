"""The `cost:` of a scenario: what an hour of a GPU costs, and how many each engine uses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from loadgen.errors import UserError
from loadgen.validation import Strict

Gpus = Annotated[int, Field(ge=1, le=100_000)]


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"must be a sign or a short name, such as $ or EUR, not {text!r}")
    return text


class Cost(Strict):
    """A price, from which the report works out what tokens cost."""

    gpu_hour: float = Field(gt=0, le=1e6, description="what an hour of one GPU costs")
    currency: Annotated[str, Field(min_length=1, max_length=8), AfterValidator(_printable)] = Field(
        default="$", description="what that is counted in"
    )
    gpus: Gpus | None = Field(
        default=None, description="GPUs that an engine uses (default: as its `serving` has it, or 1)"
    )
    engine_gpus: dict[str, Gpus] = Field(default_factory=dict, description="the same of single engines, by name")

    def check_engines(self, names: Iterable[str]) -> None:
        """Raise UserError where `engine_gpus` names an engine that does not race."""
        known = list(names)
        for name in self.engine_gpus:
            if name not in known:
                raise UserError(
                    f"`cost.engine_gpus` names {name!r}, which does not race: there are {', '.join(known)}."
                )


def priced(own: Cost | None, gpu_hour: float) -> Cost:
    """A scenario's cost at another price, or one of that price alone. Raises UserError where it is no price."""
    if not (math.isfinite(gpu_hour) and 0 < gpu_hour <= 1e6):
        raise UserError(f"--gpu-hour {gpu_hour:g}: give what an hour of one GPU costs, more than 0, such as 2.5.")
    return Cost(gpu_hour=gpu_hour) if own is None else own.model_copy(update={"gpu_hour": gpu_hour})
