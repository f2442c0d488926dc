"""What KsanaLLM's metrics are called in Prometheus: `ksana_` before its own name, and base units."""

from __future__ import annotations

import re
from functools import lru_cache

from exporters.otlp_cumulative import Place
from exporters.otlp_decode import Attributes, Stream

PREFIX = "ksana_"
MAX_NAME = 120
MAX_LABELS = 12
MAX_LABEL_VALUE = 200
MAX_IDENTITY = 4096
"""Characters of all that tells a sender apart but is no label: its resource, scope and unit."""
RESERVED_LABELS = ("engine", "le", "quantile")
INSTANCE_ID = "service.instance.id"
"""The one resource attribute that is a label: by it a conforming sender tells its instances apart."""

SECONDS = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6, "ns": 1e9}
"""How many of a unit of time make a second."""
BYTES = "By"
_TIME_SUFFIX = re.compile(r"_(ms|us|ns)(?=_\d+$|$)")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


class UnnameableError(ValueError):
    """A stream that gets no series: a name or a label is missing or beyond the limits."""


@lru_cache(maxsize=1024)
def place_of(engine: str, stream: Stream) -> Place:
    """The family, labels and unit of a stream that was pushed for `engine`. Raises UnnameableError."""
    if not stream.name:
        raise UnnameableError("a metric without a name")
    if len(stream.name) > MAX_NAME:
        raise UnnameableError(f"a metric's name of {len(stream.name)} characters (limit {MAX_NAME})")
    identity = sum(len(key) + len(value) for key, value in stream.resource) + len(stream.scope) + len(stream.unit)
    if identity > MAX_IDENTITY:
        raise UnnameableError(f"a resource of {identity} characters (limit {MAX_IDENTITY})")
    family, divisor = _family(stream.name, stream.unit)
    if stream.kind == "counter":
        family = family.removesuffix("_total")
    labels = (("engine", engine), *_labels(stream))
    instance = tuple(pair for pair in labels if pair[0] in ("engine", _label_name(INSTANCE_ID)))
    return Place(family, labels, divisor, instance)


def _family(name: str, unit: str) -> tuple[str, float]:
    base = PREFIX + _NOT_IN_NAMES.sub("_", name).removeprefix(PREFIX)
    suffix = _TIME_SUFFIX.search(base)
    # KsanaLLM tells the unit by the name only; a unit that is told goes before it.
    divisor = SECONDS.get(unit) or (SECONDS[suffix[1]] if suffix else None)
    if divisor is None:
        return (base if unit != BYTES or base.endswith("_bytes") else f"{base}_bytes"), 1.0
    if suffix:
        return _TIME_SUFFIX.sub("_seconds", base), divisor
    return (base if base.endswith("_seconds") else f"{base}_seconds"), divisor


def _labels(stream: Stream) -> Attributes:
    pairs = [*stream.attributes, *((key, value) for key, value in stream.resource if key == INSTANCE_ID)]
    if len(pairs) > MAX_LABELS:
        raise UnnameableError(f"{len(pairs)} attributes (limit {MAX_LABELS})")
    labels: dict[str, str] = {}
    for key, value in pairs:
        if len(key) > MAX_NAME or len(value) > MAX_LABEL_VALUE:
            raise UnnameableError(f"an attribute's value of {len(value)} characters (limit {MAX_LABEL_VALUE})")
        name = _label_name(key)
        # As OpenTelemetry has it for keys that become one name.
        labels[name] = f"{labels[name]};{value}" if name in labels else value
    return tuple(sorted(labels.items()))


def _label_name(key: str) -> str:
    name = _NOT_IN_NAMES.sub("_", key)
    if not name or name[0].isdigit() or name.startswith("__"):
        return f"key_{name}"
    return f"exported_{name}" if name in RESERVED_LABELS else name
