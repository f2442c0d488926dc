"""The committed JSON of the boards: building it, and telling whether it is what the code builds."""

from __future__ import annotations

from pathlib import Path

from grafana.boards.dashboard_json import dashboard_json
from loadgen.boards.catalogue import BOARDS

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"


def texts() -> dict[str, str]:
    """The text of each board's file by its name."""
    return {f"{board.uid}.json": dashboard_json(board, BOARDS) for board in BOARDS}


def differences(folder: Path) -> dict[Path, str]:
    """What is wrong with each file that is not what the code builds; empty if all are."""
    wanted = texts()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    problems = {}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            problems[folder / name] = "is missing"
        elif name not in wanted:
            problems[folder / name] = "belongs to no board"
        elif wanted[name] != found[name]:
            problems[folder / name] = "differs from what loadgen/boards/catalogue/ builds"
    return problems


def write(folder: Path) -> list[Path]:
    """Write all boards, and remove what is no board's. Returns the files that changed."""
    changed, wanted = differences(folder), texts()
    for path in changed:
        if path.name in wanted:
            path.write_text(wanted[path.name], encoding="utf-8")
        else:
            path.unlink()
    return list(changed)
