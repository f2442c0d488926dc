"""Every text of the report's that another language needs, taken from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

from jinja2 import nodes

from loadgen.client.floor import NOT_CALIBRATED
from loadgen.metrics.definitions import DEFINITIONS
from loadgen.report.columns import COLUMNS, SLO_COLUMNS
from loadgen.report.page import environment

REPORT = Path(__file__).resolve().parents[3] / "loadgen" / "report"
SAYING = {"say", "mark", "joined", "language", "told", "_"}
COUNTING = {"plural"}


def in_python(source: str) -> set[str]:
    """First arguments of calls that say a text, and both numbers of a counted word."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in SAYING and node.args:
            found |= {part.value for part in parts(node.args[0]) if isinstance(part.value, str)}
        if name in COUNTING and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            found |= counted(node.args[1].value)
    return found


def parts(node: ast.expr) -> list[ast.Constant]:
    """The constants that an argument may be."""
    if isinstance(node, ast.Constant):
        return [node]
    return [*parts(node.body), *parts(node.orelse)] if isinstance(node, ast.IfExp) else []


def in_template(source: str) -> set[str]:
    """The same of a template: `_("...")`, also of a mapping's values, and `| plural("...")`."""
    tree: nodes.Template = environment(autoescape=True).parse(source)
    found: set[str] = set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "_" and call.args:
            found |= {const.value for const in _constants(call.args[0])}
    for used in tree.find_all(nodes.Filter):
        if used.name == "plural" and used.args and isinstance(used.args[0], nodes.Const):
            found |= counted(used.args[0].value)
    return found


def _constants(node: nodes.Node) -> list[nodes.Const]:
    if isinstance(node, nodes.Const):
        return [node]
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Dict):
        return [pair.value for pair in node.node.items if isinstance(pair.value, nodes.Const)]
    return []


def counted(word: str) -> set[str]:
    """The templates of `text.plural`."""
    return {f"{{count}} {word}", f"{{count}} {word}s"}


def needed() -> set[str]:
    """All of them."""
    found: set[str] = set()
    for path in sorted([*REPORT.glob("*.py"), *REPORT.with_name("compare").glob("*.py")]):
        if path.name != "language.py":
            found |= in_python(path.read_text(encoding="utf-8"))
    for path in sorted((REPORT / "templates").glob("*.html.j2")) + sorted((REPORT / "templates").glob("*.md.j2")):
        found |= in_template(path.read_text(encoding="utf-8"))
    found |= {"missing", NOT_CALIBRATED} | set(DEFINITIONS) | set(DEFINITIONS.values())
    found |= {text for column in (*COLUMNS, *SLO_COLUMNS) for text in (column.label, column.unit)}
    return found


if __name__ == "__main__":
    for text in sorted(needed()):
        print(repr(text))
