"""How fast causal attention was measured to be on a card, and the card's limit: from `speeds.json` beside this file.

`python -m kernels.speeds` in a checkout makes that file from the measurements of `make attention`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

Speeds = Mapping[int, float]
"""TFLOP/s by length in tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What was measured with one head dimension and type of number."""

    dtype: str
    kernel: Speeds
    """Of our own kernel."""
    library: Speeds
    """Of the fastest library at each length."""


@dataclasses.dataclass(frozen=True, slots=True)
class CardSpeeds:
    """One card."""

    limit_tflops: float
    """Of its dense 16-bit tensor cores."""
    limit_source: str
    by_dim: Mapping[int, Mapping[str, Measured]]
    """By head dimension and type of number, such as `float16`."""

    def measured(self, qk_dim: int, v_dim: int, dtype: str | None) -> Measured | None:
        """What was measured for these head dimensions: of that type, else of another 16-bit type; None for none."""
        known = self.by_dim.get(qk_dim, {}) if qk_dim == v_dim else {}
        return known.get(dtype or "") or next(iter(known.values()), None)


def card_speeds(name: str) -> CardSpeeds | None:
    """Of a card, by the name that nvidia-smi gives it; None where nothing was measured on such a card."""
    card = _cards().get(name)
    if card is None:
        return None
    return CardSpeeds(
        card["limit_tflops"],
        card["limit_source"],
        {
            int(dim): {
                dtype: Measured(dtype, _lengths(found["kernel"]), _lengths(found["library"]))
                for dtype, found in types.items()
            }
            for dim, types in card["causal"].items()
        },
    )


@functools.cache
def _cards() -> dict[str, Any]:
    text = resources.files("loadgen.analysis").joinpath("speeds.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["cards"])


def _lengths(found: Mapping[str, float]) -> Speeds:
    return {int(length): float(tflops) for length, tflops in found.items()}
