"""The engines that an exporter is told of: `NAME=URL` on its command line, else the seats in the environment."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ENGINES_VARIABLE = "BAKEOFF_ENGINES_JSON"


class UsageError(Exception):
    """Something the user can mend; the text says what. The exporter prints it without a traceback and exits with 2."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One engine to watch."""

    name: str
    url: str
    """Root of its API, without a trailing slash and without `/v1`."""
    host: str
    port: int


def parse_target(text: str) -> Target:
    """Read `NAME=URL`. Raises UsageError when it is not one."""
    name, equals, url = text.partition("=")
    example = "for example vllm=http://127.0.0.1:8101"
    if not equals or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise UsageError(
            f"--engine {text!r}: expected NAME=URL with a NAME of letters, digits, '_', '.', '-'; {example}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise UsageError(f"--engine {text!r}: not a URL ({error}); {example}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--engine {text!r}: the URL must start with http:// or https:// and name a host; {example}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"--engine {name}: the URL must hold no credentials, query or fragment; {example}")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Target(name, f"{parts.scheme}://{parts.netloc}{path}", host, port)


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError when a name is given twice."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--engine names {twice[0]!r} twice; each engine needs its own name")


def targets_of_environment() -> list[Target]:
    """The engines in `BAKEOFF_ENGINES_JSON`, as Locust's form has them. Raises UsageError when it is malformed."""
    try:
        seats = json.loads(os.environ.get(ENGINES_VARIABLE) or "[]")
        return [parse_target(f"{seat['name']}={seat['base_url']}") for seat in seats]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{ENGINES_VARIABLE} is not a JSON list of engines with name and base_url.") from None
