"""Which container is which engine: a file that `make up` writes, because no exporter may ask Docker."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

SHORTEST_ID = 12
OPTION_HELP = (
    "JSON object of container id: engine, read again and again; while it is missing or broken no container is known, "
    "and the log says so once"
)


def read_container_map(path: Path) -> dict[str, str]:
    """Read `{container id: engine}`; ids may be shortened to 12 digits. Raises ValueError and OSError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object of container id: engine")
    for container, engine in found.items():
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},64}}", container) or not isinstance(engine, str) or not engine:
            raise ValueError(f"{container!r} is no container id of {SHORTEST_ID} to 64 digits, or has no engine's name")
    return found


class ContainerMap:
    """What the file says now. A file that cannot be read is an empty one; why is logged when it changes."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self._path, self._log = path, log
        self._complaint = ""

    def engines(self) -> dict[str, str]:
        """Engine of each container, by id."""
        try:
            engines, complaint = read_container_map(self._path), ""
        except (OSError, ValueError) as error:
            engines, complaint = {}, str(error)
        if complaint != self._complaint:
            self._complaint = complaint
            if complaint:
                fields = {"file": str(self._path), "reason": complaint}
                self._log.warning("container_map_unreadable", extra={"fields": fields})
        return engines
