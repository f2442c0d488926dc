"""This machine's GPUs, and the model that GPU engines serve; for containers and plain processes alike."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporters.nvml import Nvml, NvmlError
from exporters.patience import Late, Patience
from loadgen.errors import UserError
from loadgen.hosts.cards import Card
from loadgen.settings import Settings

ANSWER_LIMIT_S = 10.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_VARIABLES = {
    name: f"BAKEOFF_{name.upper().replace('-', '_')}_GPUS" for name in ("vllm", "ksana", "sglang", "vllm-2", "ksana-2")
}
"""The variable that names the GPUs of each engine of the stack's own."""
HUB_ENGINES = ("vllm", "sglang")
"""Those that fetch a model of the hub by its name."""


def gpus_here(nvml: Nvml | None = None, limit_s: float = ANSWER_LIMIT_S) -> list[Card] | str:
    """The GPUs that NVIDIA's driver tells of, or why there are none, in a few words."""
    nvml = nvml or Nvml()

    def look() -> list[Card]:
        try:
            count = nvml.open()
            handles = [nvml.handle(index) for index in range(count)]
            return [Card(index, nvml.uuid(one), nvml.name(one), nvml.is_cut(one)) for index, one in enumerate(handles)]
        finally:
            nvml.close()

    try:
        return Patience(limit_s).ask("driver", "look", look) or "the NVIDIA driver knows no GPU"
    except NvmlError as error:
        absent = error.kind in ("library_not_found", "driver_not_loaded")
        return "no NVIDIA driver here" if absent else f"the NVIDIA driver does not answer: {error.kind}"
    except Late:
        return f"the NVIDIA driver does not answer within {limit_s:g} s"


def in_words(gpus: Sequence[Card]) -> str:
    """GPUs for people, such as "2 x NVIDIA H200"."""
    names = [gpu.name for gpu in gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def engine_gpus(asked: str, environ: Mapping[str, str] = os.environ) -> str:
    """The GPUs that an engine gets: as asked for, else the first of those that this user was given, else GPU 0."""
    given = [name.strip() for name in (asked or environ.get(VISIBLE, "").partition(",")[0] or "0").split(",")]
    return ",".join(name for name in given if name)


@functools.cache
def known_gpus() -> tuple[Card, ...]:
    """Those of this machine, asked for once; none where the driver does not tell."""
    found = gpus_here()
    return () if isinstance(found, str) else tuple(found)


def usable_gpus(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that this user may use, in order: those that were given, else all of this machine's."""
    given = tuple(name.strip() for name in environ.get(VISIBLE, "").split(",") if name.strip())
    return given or tuple(str(gpu.index) for gpu in known_gpus())


def served_model(settings: Settings) -> str:
    """The name under which GPU engines serve their model: as set, else the folder's or the hub model's own."""
    return settings.model_name or Path(settings.model_dir or settings.model).name


def check_gpu_model(settings: Settings, engine: str | None, checkout: Path, otherwise: str = "") -> None:
    """Raise UserError unless there is a model for the GPU engine that is to start.

    `otherwise` ends the message where no model is named: what else can be done.
    """
    if settings.model_dir:
        folder = checkout / settings.model_dir
        if not (folder / "config.json").is_file():
            raise UserError(f"BAKEOFF_MODEL_DIR={settings.model_dir}: {folder} holds no config.json of a model")
    elif engine == "ksana":
        raise UserError(
            "KsanaLLM serves a folder only: set BAKEOFF_MODEL_DIR in .env to a model folder of this machine"
        )
    elif engine in HUB_ENGINES and not settings.model:
        raise UserError(
            "no model is named: set BAKEOFF_MODEL_DIR in .env to a model folder of this machine, or BAKEOFF_MODEL to a "
            f"model of the hub (not for KsanaLLM), such as Qwen/Qwen2.5-7B-Instruct{otherwise}"
        )
