"""Write what reports need of the measurements: `loadgen/analysis/speeds.json`, from `docs/attention/data/bench*.json`.

Run `python -m kernels.speeds` after `make attention`, or after adding another card's `bench-NAME.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernels.cards import card_of

TOP = Path(__file__).parent.parent
DATA = TOP / "docs" / "attention" / "data"
TARGET = TOP / "loadgen" / "analysis" / "speeds.json"
KERNEL = "hopper"
"""Our fastest."""
LIBRARIES = ("flash", "cudnn", "fa3")
LIMIT_SOURCE = "NVIDIA's data sheet: 16-bit tensor cores, dense"


def speeds(benches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Causal TFLOP/s by card, head dimension, type and length: medians over runs of our kernel and the best library.

    Args:
        benches: files of `kernels.bench`, one a card.

    Raises:
        ValueError: two are of one card, or a card's limit is not known.
    """
    cards: dict[str, Any] = {}
    for bench in benches:
        name = str(bench["card"])
        limits = card_of(name)
        if limits is None:
            raise ValueError(f"the limit of a {name} is not known: add it to kernels/cards.py")
        if name in cards:
            raise ValueError(f"two files hold measurements of a {name}: keep one")
        cards[name] = {"limit_tflops": limits.tflops, "limit_source": LIMIT_SOURCE, "causal": _causal(bench)}
    return {"cards": dict(sorted(cards.items()))}


def _causal(bench: Mapping[str, Any]) -> dict[str, Any]:
    """By head dimension and type: `kernel` and `library`, each TFLOP/s by length."""
    runs: dict[tuple[int, str, int, str], list[float]] = defaultdict(list)
    for run in bench["runs"]:
        for row in run["rows"]:
            if row["causal"] and row["kernel"] in (KERNEL, *LIBRARIES):
                runs[row["dim"], row["dtype"], row["seqlen"], row["kernel"]].append(row["tflops"])
    found: dict[str, Any] = {}
    for (dim, dtype, length, kernel), values in sorted(runs.items()):
        kind = "kernel" if kernel == KERNEL else "library"
        known = found.setdefault(str(dim), {}).setdefault(dtype, {"kernel": {}, "library": {}})[kind]
        known[str(length)] = max(known.get(str(length), 0.0), round(statistics.median(values), 1))
    return found


def text(folder: Path = DATA) -> str:
    """The file's content. Raises ValueError, also for JSON that cannot be read."""
    benches = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("bench*.json"))]
    return json.dumps(speeds(benches), indent=1) + "\n"


if __name__ == "__main__":
    try:
        TARGET.write_text(text(), encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
