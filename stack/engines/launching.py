"""What launchers share: they run inside an engine's own image, write down what they start, and become the engine.

Standard library only, and no newer than Python 3.9: the image decides which Python there is.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from loadgen.engines.serving import NativeSetting, block_facts, read_block
from loadgen.errors import UserError
from loadgen.files import atomic_write

SERVING_VARIABLE = "BAKEOFF_SERVING_JSON"
MODEL_VARIABLE = "BAKEOFF_MODEL"
RECORD_VARIABLE = "BAKEOFF_LAUNCH_RECORD"
STATE_VARIABLE = "BAKEOFF_STATE_DIR"
PORT_VARIABLE = "BAKEOFF_PORT"
STATE_DIR = "/tmp/bakeoff"  # noqa: S108 - a tmpfs of the container's own
REDACTED = "(redacted)"


def run(main: Callable[[], NoReturn]) -> NoReturn:
    """Run a launcher; what its user can mend is one message and exit status 2, without a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def read_serving() -> dict[str, Any]:
    """The serving settings asked for. Raises UserError when they are malformed."""
    try:
        return read_block(os.environ.get(SERVING_VARIABLE, ""))
    except UserError as error:
        raise UserError(f"{SERVING_VARIABLE}: {error}") from None


def read_port(default: int) -> int:
    """The port to serve on. Raises UserError when it is none."""
    text = os.environ.get(PORT_VARIABLE) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UserError(f"{PORT_VARIABLE}={text!r} is not a port: give a number from 1 to 65535.")
    return int(text)


def need_model() -> str:
    """The model as the user named it. Raises UserError when there is none."""
    model = os.environ.get(MODEL_VARIABLE, "")
    if not model:
        raise UserError(f"No model is named: set {MODEL_VARIABLE}.")
    return model


def read_model(folder: Path) -> dict[str, Any]:
    """A model folder's config.json. Raises UserError when it is not a folder that holds one."""
    if not folder.is_dir():
        raise UserError(
            f"There is no model folder {folder} in this container: mount the folder that holds config.json and the "
            f"weights there, or name another with {MODEL_VARIABLE}."
        )
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no config.json: it is not a model folder of the Hugging Face form. "
            f"Mount one, or name another with {MODEL_VARIABLE}."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object.")
    return config


def state_dir() -> Path:
    """A folder that this launcher may write to. Raises UserError when it cannot be made."""
    folder = Path(os.environ.get(STATE_VARIABLE) or STATE_DIR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error}. Name a writable folder with {STATE_VARIABLE}.") from None
    return folder


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed versions of these packages; those absent are left out."""
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader finds either the old or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(content, indent=2) + "\n")


def become(
    what: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
    settings: Sequence[NativeSetting],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    cwd: Path,
) -> NoReturn:
    """Write the launch record, say what is started, and replace this process by it, so that signals reach it.

    Args:
        what: the engine's name for people.
        argv: the command line; the first is the program's path.
        environment: variables added to those of this process.
        secrets: the same, but never written down.
        settings: what becomes of the serving settings.
        facts: what else belongs into the record.
        notes: what a person should know beside the settings.
        cwd: where it runs.

    Raises:
        UserError: the record cannot be written, or the program cannot be started.
    """
    record = {
        "pid": os.getpid(),
        "started_unix_s": time.time(),
        "argv": list(argv),
        "environment": {**dict(sorted(environment.items())), **dict.fromkeys(sorted(secrets), REDACTED)},
        "cwd": str(cwd),
        "python": platform.python_version(),
        **facts,
        "serving": block_facts(list(settings)),
        "notes": list(notes),
    }
    place = os.environ.get(RECORD_VARIABLE)
    if place:
        try:
            write_json(Path(place), record)
        except OSError as error:
            raise UserError(f"{place} ({RECORD_VARIABLE}) cannot be written: {error}") from None
    for remark in [*(setting.remark() for setting in settings), *notes]:
        if remark:
            print(f"note: {remark}", file=sys.stderr, flush=True)
    print(f"starting {what}: {shlex.join(argv)}", flush=True)
    try:
        os.chdir(cwd)
        os.execve(argv[0], list(argv), {**os.environ, **environment, **secrets})  # noqa: S606 - our own argument list
    except OSError as error:
        raise UserError(f"{what} cannot be started: {error}") from None
