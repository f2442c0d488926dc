"""Errors that are meant for the user, and what the exit codes of the command line mean (docs/compare.md lists them)."""

import json
from collections.abc import Mapping
from urllib.parse import quote

OK = 0
NOT_WHOLE = 1
"""Requests failed, or not all was measured."""
WRONG_USAGE = 2
THRESHOLD_FAILED = 3
UNDECIDED = 4
"""No threshold failed, and one is undecided."""
PREFLIGHT_REFUSES = 5
CLIENT_LIMITED = 6
"""All went well, but nothing can be judged: the load generator was the limit."""
INTERRUPTED = 130
MIN_SECRET_CHARS = 4
"""A header's shorter value is no secret, and stands in texts by chance."""


def end_code(*, failed: bool, limited: bool) -> int:
    """The exit code of `run` and `bench` that came to their end: whether a request failed, and who was the limit."""
    return NOT_WHOLE if failed else CLIENT_LIMITED if limited else OK


class UserError(Exception):
    """Something the user can mend. Its text says what is wrong, where, and what to do.

    The command line prints the text alone, without a traceback, and exits with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def without_secrets(text: str, headers: Mapping[str, str]) -> str:
    """A server's words without the values of the headers that were sent to it, which it may repeat.

    A value is found as it is, without its scheme (`Bearer`), and as JSON and URLs write it. At the end of the text,
    which may have been cut there, the beginning of a value is enough.
    """
    values = [value for name, value in headers.items() if name.lower() != "accept"]
    bare = [value.split(" ", 1)[-1] for value in values]
    written = {form for value in (*values, *bare) for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    for value in sorted(written, key=len, reverse=True):
        if len(value) >= MIN_SECRET_CHARS:
            text = text.replace(value, "…")
    for value in bare:
        end = text.rstrip("'\").")
        cut = next((n for n in range(len(value) - 1, MIN_SECRET_CHARS - 1, -1) if end.endswith(value[:n])), 0)
        text = f"{end[:-cut]}…{text[len(end) :]}" if cut else text
    return text


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever handles Ctrl-C handles it too, and may say which it was."""
