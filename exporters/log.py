"""Structured logs: one logfmt line an event, on stderr."""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys

_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f]+")


def logfmt(fields: dict[str, object]) -> str:
    """Render `key=value` pairs; a value with spaces, quotes, `=` or control characters is quoted as in JSON."""
    parts = []
    for key, value in fields.items():
        text = str(value)
        parts.append(f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
    return " ".join(parts)


class LogfmtFormatter(logging.Formatter):
    """Formats a record and the `fields` given in its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, whatever the record holds."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, object] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
        return logfmt(fields)


def set_up_logging(level: str = "INFO") -> None:
    """Send all logs of this process to stderr as logfmt."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
