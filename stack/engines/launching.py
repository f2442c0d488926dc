"""What launchers share: they run inside an engine's own image, write down what they start, and become the engine.

Standard library only, and no newer than Python 3.9: the image decides which Python there is.
"""

from __future__ import annotations

import dataclasses
import importlib.util
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

from loadgen.engines import parallel
from loadgen.engines.model_config import attention_config
from loadgen.engines.serving import NativeSetting, asks_for_resets, block_facts, read_block
from loadgen.errors import UserError
from loadgen.files import atomic_write

TOKEN_VARIABLE = "BAKEOFF_HF_TOKEN_FILE"  # noqa: S105 - the name of a file
TOKEN_FILE = "/run/secrets/hf_token"  # noqa: S105
SERVING_VARIABLE = "BAKEOFF_SERVING_FILE"
MODEL_VARIABLE = "BAKEOFF_MODEL"
RECORD_VARIABLE = "BAKEOFF_LAUNCH_RECORD"
STATE_VARIABLE = "BAKEOFF_STATE_DIR"
PORT_VARIABLE = "BAKEOFF_PORT"
ADDRESS_VARIABLE = "BAKEOFF_ADDRESS"
PLACE_VARIABLE = "BAKEOFF_PLACE"
"""What was done to hold this process on cores, memory and GPUs, as JSON, for its launch record."""
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - of a container's own network; compose publishes on loopback
STATE_DIR = "/tmp/bakeoff"  # noqa: S108 - a tmpfs of the container's own
DEVICES = Path("/dev")
REDACTED = "(redacted)"


def run(main: Callable[[], NoReturn]) -> NoReturn:
    """Run a launcher; what its user can mend is one message and exit status 2, without a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def read_serving() -> dict[str, Any]:
    """The serving settings asked for, from the file that `make up` and races write; none where there is no file.

    Raises UserError when they are malformed.
    """
    asked: dict[str, Any] = _serving_file(read_block)
    return asked


def for_resets(variable: str | None) -> tuple[dict[str, str], list[str]]:
    """What an engine needs to be asked for an empty prefix cache, and what to tell of it; nothing unless it will be.

    Args:
        variable: the one that gives it such a route; None: it needs none.

    Raises:
        UserError: the serving settings are malformed.
    """
    if variable is None or not _serving_file(asks_for_resets):
        return {}, []
    note = "routes for development are open to whoever reaches its port, as the scenario has prefix caches emptied"
    return {variable: "1"}, [f"{variable}=1: {note}"]


def _serving_file(read: Callable[[str], Any]) -> Any:
    """What a reader makes of the serving file. Raises UserError with its name."""
    path = os.environ.get(SERVING_VARIABLE, "")
    try:
        return read(Path(path).read_text(encoding="utf-8") if path else "")
    except FileNotFoundError:
        return read("")
    except (OSError, UnicodeError, UserError) as error:
        raise UserError(f"{path} ({SERVING_VARIABLE}): {error}") from None


def read_port(default: int) -> int:
    """The port to serve on. Raises UserError when it is none."""
    text = os.environ.get(PORT_VARIABLE) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UserError(f"{PORT_VARIABLE}={text!r} is not a port: give a number from 1 to 65535.")
    return int(text)


def read_address() -> str:
    """The address to serve on: all of a container's, unless another one is named."""
    return os.environ.get(ADDRESS_VARIABLE) or ALL_ADDRESSES


def place_facts() -> dict[str, Any]:
    """The GPUs, cores and memory that this process was given, for the launch record; empty where nobody chose."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    facts: dict[str, Any] = {"gpus": {"device_ids": given}} if given else {}
    if place := os.environ.get(PLACE_VARIABLE):
        facts["placement"] = json.loads(place)
    return facts


def check_cards(kind: str, asked: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise UserError, with the sizes that would do, where the model or the GPUs here do not allow those asked for."""
    here = gpus_seen()
    most = here if here is not None else parallel.MOST_CARDS
    if problem := parallel.refusal(kind, asked, config, max(most, 1)):
        raise UserError(f"{problem}.")
    count = parallel.cards_asked(kind, asked)
    if count is not None and here is not None and count > here:
        raise UserError(
            f"{parallel.in_words(kind, asked)} takes {count} GPUs, and {here} can be seen from here; "
            f"{parallel.would_do(kind, asked, config, here)}, or give it more with BAKEOFF_{kind.upper()}_GPUS, such "
            f"as {','.join(map(str, range(count)))}."
        )


def gpus_seen() -> int | None:
    """How many GPUs this process, or its container, was given; None where that cannot be told."""
    if given := [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]:
        return len(given)
    return sum(path.name[len("nvidia") :].isdecimal() for path in DEVICES.glob("nvidia*")) or None


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
            f"There is no model folder {folder}: name one that holds config.json and the weights with "
            f"{MODEL_VARIABLE}, or mount it there in a container."
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


@dataclasses.dataclass(frozen=True)
class Server:
    """An engine that is a module of its Python and takes a model's folder, or a hub's name, which it fetches itself."""

    title: str
    kind: str
    """As its module and its variables are called too."""
    packages: Sequence[str]
    """Those whose versions are recorded."""
    port: int
    """Where it serves if nobody says."""
    environment: Mapping[str, str]
    translate: Callable[[Mapping[str, Any]], Sequence[NativeSetting]]
    command: Callable[[str, str | None, str, int, Sequence[NativeSetting]], Sequence[str]]
    """Of model, served name, address, port and settings."""
    reset_variable: str | None
    """As `for_resets` takes it."""

    def become(self) -> NoReturn:
        """Check what has to be there, and become it. Raises UserError."""
        if importlib.util.find_spec(self.kind) is None:
            name = self.kind.upper()
            raise UserError(
                f"There is no {self.title} for {sys.executable}: name an image that has it with {name}_IMAGE, or "
                f"without containers a Python with BAKEOFF_{name}_PYTHON."
            )
        model = need_model()
        config = read_model(Path(model)) if is_folder_name(model) else {}
        asked = read_serving()
        check_cards(self.kind, asked, config)
        settings = self.translate(asked)
        argv = self.command(
            model, os.environ.get("BAKEOFF_SERVED_NAME"), read_address(), read_port(self.port), settings
        )
        # It is started as a module, which puts the working folder on its import path.
        cwd = state_dir()
        facts = {
            "cwd": str(cwd),
            "model_path": model,
            "model_config": attention_config(config),
            "packages": versions(self.packages),
            **place_facts(),
        }
        opened, notes = for_resets(self.reset_variable)
        launch = Launch(argv, {**self.environment, **opened}, settings, facts, notes, secrets=hub_token())
        launch.record(record_place())
        launch.become(self.title, cwd)


def is_folder_name(model: str) -> bool:
    """Whether this names a folder rather than a model on a hub (`owner/name`)."""
    return model.startswith(("/", ".")) or Path(model).exists()


def hub_token() -> dict[str, str]:
    """The hub's token for an engine's environment; empty where no secret is mounted. Raises UserError."""
    path = Path(os.environ.get(TOKEN_VARIABLE) or TOKEN_FILE)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"The hub token in {path} cannot be read: {error}") from None
    return {"HF_TOKEN": token} if token else {}


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


@dataclasses.dataclass(frozen=True)
class Launch:
    """An engine as it is about to be started."""

    argv: Sequence[str]
    """The command line; the first is the program's path."""
    environment: Mapping[str, str]
    """Variables added to those of this process."""
    settings: Sequence[NativeSetting]
    """What becomes of the serving settings; empty where there is nothing to tell of them."""
    facts: Mapping[str, Any]
    """What else belongs into the record."""
    notes: Sequence[str] = ()
    """What a person should know beside the settings."""
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """More variables, which are never written down."""

    def record(self, place: Path | None) -> None:
        """Write the launch record, if a place for it is named, and say what a person should know. Raises UserError."""
        record = {
            "pid": os.getpid(),
            "started_unix_s": time.time(),
            "argv": list(self.argv),
            "environment": {**dict(sorted(self.environment.items())), **dict.fromkeys(sorted(self.secrets), REDACTED)},
            "python": platform.python_version(),
            **self.facts,
            **({"serving": block_facts(list(self.settings))} if self.settings else {}),
            "notes": list(self.notes),
        }
        if place:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(place, json.dumps(record, indent=2) + "\n")
            except OSError as error:
                raise UserError(f"the launch record {place} ({RECORD_VARIABLE}) cannot be written: {error}") from None
        for remark in [*(setting.remark() for setting in self.settings), *self.notes]:
            if remark:
                print(f"note: {remark}", file=sys.stderr, flush=True)

    def become(self, what: str, cwd: Path) -> NoReturn:
        """Replace this process by the engine, so that signals reach it. Raises UserError if it cannot be started.

        Args:
            what: the engine's name for people.
            cwd: where it runs.
        """
        print(f"starting {what}: {shlex.join(self.argv)}", flush=True)
        try:
            os.chdir(cwd)
            variables = {**os.environ, **self.environment, **self.secrets}
            os.execve(self.argv[0], list(self.argv), variables)  # noqa: S606 - our own argument list
        except OSError as error:
            raise UserError(f"{what} cannot be started: {error}") from None


def record_place() -> Path | None:
    """Where the launch record goes, by the environment."""
    place = os.environ.get(RECORD_VARIABLE)
    return Path(place) if place else None
