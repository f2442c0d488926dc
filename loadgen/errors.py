"""Errors that are meant for the user, and what the exit codes of the command line mean (docs/compare.md lists them)."""

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


class UserError(Exception):
    """Something the user can mend. Its text says what is wrong, where, and what to do.

    The command line prints the text alone, without a traceback, and exits with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
