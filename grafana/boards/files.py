"""The committed JSON of the boards: building it, and telling whether it is what the code builds."""

from __future__ import annotations

from pathlib import Path

from grafana.boards.dashboard_json import dashboard_json
from loadgen.boards.catalogue import BOARDS

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"


def texts() -> dict[str, str]:
    """The text of each board's file by its name."""
    return {f"{board.uid}.json": dashboard_json(board, BOARDS) for board in BOARDS}


def write(folder: Path) -> list[Path]:
    """Write all boards, and remove what is no board's. Returns the files that changed."""
    wanted = texts()
    changed = []
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
            changed.append(path)
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return sorted(changed)


def differences(folder: Path) -> list[str]:
    """A line for each file that is not what the code builds; none if all are."""
    wanted = texts()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    lines = [f"{folder / name} is missing" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"{folder / name} belongs to no board" for name in sorted(found.keys() - wanted.keys())]
    lines += [
        f"{folder / name} differs from what loadgen/boards/catalogue/ builds"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    return lines
