"""`python -m tests.coverage_table`: the share of lines that the tests of `make coverage` ran, package by package."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import coverage

TOP = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print a line a package, fewest lines covered first, and the total."""
    data = coverage.Coverage()
    data.load()
    lines: dict[str, int] = defaultdict(int)
    missed: dict[str, int] = defaultdict(int)
    for file in data.get_data().measured_files():
        _, statements, _, missing, _ = data.analysis2(file)
        package = str(Path(file).relative_to(TOP).parent)
        for name in (package, "total"):
            lines[name] += len(statements)
            missed[name] += len(missing)
    share = {name: 1 - missed[name] / lines[name] for name in lines if lines[name]}
    for name in sorted(share, key=lambda name: (name == "total", share[name])):
        print(f"{share[name]:6.1%}  {lines[name]:6,} lines  {name}")


if __name__ == "__main__":
    main()
