"""The `.env` of a checkout: written once, with a password for Grafana; a file that is there is never changed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from loadgen.errors import UserError
from loadgen.files import cannot_be_written
from loadgen.settings import Settings, load_settings
from stack.commands import say

PASSWORD = "BAKEOFF_GRAFANA_PASSWORD"  # noqa: S105 - the name of a variable
_TEXT = """\
# Written once by `make up`; yours to edit. .env.example documents every variable.

# Grafana's user is admin. The password counts when Grafana's volume is new: `make clean` makes it new.
{name}={password}
"""


def new_password() -> str:
    """A password of 144 random bits."""
    return secrets.token_urlsafe(18)


def write_env_file(path: Path) -> bool:
    """Write the file, for this user's eyes only, unless there is one. Returns whether it was written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_be_written(path, error) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_TEXT.format(name=PASSWORD, password=new_password()))
    return True


def settings_with_password(checkout: Path) -> Settings:
    """The settings, after writing a `.env` with a password for Grafana where there is no file.

    Raises UserError, with a line to copy, if a user's own file sets no password.
    """
    path = checkout / ".env"
    if write_env_file(path):
        say(f"wrote {path.name} with a password for Grafana")
    settings = load_settings(checkout)
    if not settings.grafana_password:
        raise UserError(
            f"{path} sets no password for Grafana, and a file that is there is left alone. "
            f"Add a line such as\n{PASSWORD}={new_password()}"
        )
    return settings
