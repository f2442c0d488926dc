"""Errors that are meant for the user."""


class SimulatorError(Exception):
    """Something the user can mend: printed as one line, exit status 2."""


class BadRequestError(Exception):
    """A request that the simulated engine refuses. `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
