"""What a run says of itself in words (its manifest's messages and reasons), so that other languages can say it too.

Such a text is recognised by the template that it was made by; its values are texts of a run themselves. What no
template knows, an engine's own error message above all, stays as it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from loadgen.message import joined, mark, say
from loadgen.presentation.run_templates import TEMPLATES

SHAPES: dict[str, frozenset[str]] = {
    r".+?": frozenset({"problem", "error", "log", "why", "reasons", "how", "words", "verdicts", "value"}),
    r"\S+?": frozenset({"engine", "other", "worker", "block", "field"}),
    r"[-+]?\d+|not told": frozenset({"told"}),
    r"[-+]?[\d.,]+(?: ?ms|%)?": frozenset(
        {"count", "all", "wanted", "done", "more", "workers", "left", "seconds", "tokens", "least", "most", "pieces"}
        | {"first", "same", "again", "streams", "cached", "prompt", "fresh", "short", "lead", "lag", "pause", "mean"}
        | {"others", "size", "share", "tolerance", "ttft50", "ttft99", "itl", "tpot", "factor", "at", "length"}
    ),
}
"""What values look like, by their names: free text, a name, a figure. Of the rest none holds what parts texts."""
JOINTS = {"; ": "{a}; {b}", ". ": "{a} {b}", "\n": "{a}\n{b}"}
AND = mark("{some} and {last}")


def of_run(text: str) -> str:
    """A text of a run as one that other languages have; any other as it is. Parts between semicolons count alone."""
    found = _recognised(text)
    if found is not None:
        return found
    for separator in ("; ", ". ", "\n"):
        parts = _parts(text, separator)
        if len(parts) > 1:
            said = [of_run(part) for part in parts]
            if any(one is not part for one, part in zip(said, parts, strict=True)):
                return joined(JOINTS[separator], said)
    items = [_recognised(part) for part in text.split(", ")]
    known = [item for item in items if item is not None]
    return joined("{a}, {b}", known) if len(known) == len(items) else text


def _parts(text: str, separator: str) -> list[str]:
    """Split a text; a full stop stays with its sentence."""
    if separator != ". ":
        return text.split(separator)
    return re.split(r"(?<=\.) ", text)


def _recognised(text: str) -> str | None:
    for template, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            return say(template, **{name: _value(name, value) for name, value in found.groupdict().items()})
    return None


def _value(name: str, value: str) -> str:
    """A value: `engines` and `checks` are names, the others may be texts."""
    if name == "checks":
        return joined("{a}, {b}", [say(check) for check in value.split(", ")])
    if name == "engines" and " and " in value:
        *some, last = value.split(" and ")
        return say(AND, some=joined("{a}, {b}", some), last=last)
    return of_run(value)


@functools.cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    """Every template with the pattern of its texts; the one that says most by itself comes first."""
    ordered = sorted(TEMPLATES, key=lambda template: -len(re.sub(r"\{\w+\}", "", template)))
    return [(template, _pattern(template)) for template in ordered]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    source = "".join(f"(?P<{part}>{_shape(part)})" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
    return re.compile(source, re.DOTALL)


def _shape(name: str) -> str:
    """What a value of this name looks like."""
    return next((shape for shape, names in SHAPES.items() if name in names), r"[^;\n]+?")
