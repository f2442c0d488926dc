"""The simulator is the oracle for the load generator, so neither may lean on the other."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("simulator", {"loadgen", "exporters", "stack"}), ("loadgen", {"simulator"}), ("exporters", {"simulator"})],
)
def test_no_code_is_shared(package: str, forbidden: set[str]) -> None:
    files = list((CHECKOUT / package).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        assert not imported(path) & forbidden, path
