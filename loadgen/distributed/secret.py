"""The secret of a stack: who knows it may be a worker of its Locust master, or the master of its workers."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import zmq
from zmq.utils import z85

from loadgen.errors import UserError
from loadgen.files import cannot_be_written
from loadgen.machine import IN_CHECKOUT

SECRET_VARIABLE = "BAKEOFF_TRAFFIC_SECRET"  # noqa: S105 - the name of a variable
"""Holds the secret itself; a race passes a fresh one to the Locust of its own."""
FILE_VARIABLE = "BAKEOFF_TRAFFIC_SECRET_FILE"
"""Names a file with it, for workers on other machines and in containers."""
LEAST_CHARS = 32
MOST_BYTES = 4096
Keys = tuple[bytes, bytes]
"""Of CURVE: public and secret, in Z85."""


def new_secret() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def default_file() -> Path:
    """Where a secret lies of which nobody said where: in this checkout's working state, or in the user's own."""
    if IN_CHECKOUT:
        return Path(__file__).parents[2] / ".bakeoff" / "traffic-secret"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "bakeoff" / "traffic-secret"


def make_secret_file(path: Path) -> None:
    """Write a new secret for this user's eyes only, unless there is one. Raises UserError.

    Of several that do so at the same time, one writes, and whoever reads it reads a whole one.
    """
    if path.is_file():
        return
    made = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(new_secret() + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(made, path)
        finally:
            made.unlink()
    except OSError as error:
        raise cannot_be_written(path, error, f"{FILE_VARIABLE} names another file.") from None


def read_secret(environ: Mapping[str, str] = os.environ) -> bytes:
    """The secret, from the environment, or from its file, which is made where none was named and there is none yet.

    Raises:
        UserError: it cannot be read, or is too short to be one.
    """
    if text := environ.get(SECRET_VARIABLE):
        return _checked(text, SECRET_VARIABLE)
    named = environ.get(FILE_VARIABLE)
    path = Path(named) if named else default_file()
    if not named:
        make_secret_file(path)
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(
            f"{path}: the secret of Locust's master and workers cannot be read: {error.strerror or error}. "
            f"{FILE_VARIABLE} names the file; `make up` makes it on the master's machine."
        ) from None
    return _checked(text, str(path))


def _checked(text: str, where: str) -> bytes:
    text = text.strip()
    if len(text) < LEAST_CHARS:
        raise UserError(f"{where}: a secret of Locust's master and workers has {LEAST_CHARS} characters or more.")
    return text.encode()


def master_keys(secret: bytes) -> Keys:
    """The master's pair. Its public key never crosses the network, so only who knows the secret can shake hands."""
    made = z85.encode(hmac.digest(secret, b"bakeoff: Locust's master", hashlib.sha256))
    return zmq.curve_public(made), made
