"""Errors that are meant for the user."""


class UserError(Exception):
    """Something the user can mend. Its text says what is wrong, where, and what to do.

    The command line prints the text alone, without a traceback, and exits with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
