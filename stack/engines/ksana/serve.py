"""Start KsanaLLM: the serving settings become its YAML. Runs with the Python of the image, or machine, that has it.

The folder three levels up has to hold `loadgen/`. Reads BAKEOFF_MODEL (a folder), BAKEOFF_ADDRESS, BAKEOFF_PORT (8080),
BAKEOFF_METRICS_URL, BAKEOFF_SERVING_FILE, BAKEOFF_LAUNCH_RECORD, BAKEOFF_STATE_DIR, BAKEOFF_KSANA_SERVER (where
serving_server.py lies) and BAKEOFF_KSANA_MODEL_TYPES (model types that this build supports and we do not know of).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from loadgen.engines.ksana import (
    BLOCKS_VARIABLE,
    WARM_UP_VARIABLE,
    KsanaLLM,
    configuration,
    environment,
    model_dtype,
    to_yaml,
    translate,
)
from loadgen.engines.model_config import attention_config
from loadgen.errors import UserError
from stack.engines import launching

SERVER = "serving_server.py"
SERVER_VARIABLE = "BAKEOFF_KSANA_SERVER"
SOURCE_VARIABLE = "GIT_PROJECT_REPO_ROOT"
"""Upstream's own variable for the checkout (README.md, "Clone source code")."""
USUAL_CHECKOUTS = ("/KsanaLLM", "/workspace/KsanaLLM", "/root/KsanaLLM", "/opt/KsanaLLM", "/app/KsanaLLM")
TYPES_VARIABLE = "BAKEOFF_KSANA_MODEL_TYPES"
# A model is chosen by what its `model_type` contains (src/ksana_llm/runtime/model_instance.cpp).
MODEL_TYPES = (
    *("llama", "qwen", "baichuan", "chatglm", "gpt", "fairseq-transformer", "internlm2", "internvl_chat"),
    *("internlmxcomposer2", "hunyuan", "mixtral", "deepseek_v2", "deepseek_v3", "kimi_k2", "minicpm"),
)
DTYPES = ("float16", "bfloat16")
OWN_VARIABLES = ("DISABLE_WARMUP", WARM_UP_VARIABLE, BLOCKS_VARIABLE)
"""Of KsanaLLM's own, those that change what is compared."""
METRICS_VARIABLE = "BAKEOFF_METRICS_URL"
METRICS_URL = "http://ksana-exporter:9103/v1/metrics"


def main() -> NoReturn:
    """Check what has to be there, write the YAML, and become KsanaLLM's server."""
    server = find_server()
    model = Path(launching.need_model())
    config = launching.read_model(model)
    check_model(model, config, server.parent)
    block = launching.read_serving()
    launching.check_cards(KsanaLLM.kind, block, config)
    settings = translate(block, config)
    text = to_yaml(configuration(settings, str(model), metrics_url()))
    path = launching.state_dir() / "ksana.yaml"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from None
    libraries = str(server.parent / "lib")
    argv = [
        *(sys.executable, str(server)),
        *("--config_file", str(path)),
        *("--host", launching.read_address()),
        *("--port", str(launching.read_port(8080))),
    ]
    variables = {
        **environment(block, config),
        "PYTHONPATH": joined(str(server.parent), libraries, os.environ.get("PYTHONPATH")),
        "LD_LIBRARY_PATH": joined(libraries, os.environ.get("LD_LIBRARY_PATH")),
        # Its log goes to a file only; here that is the container's log.
        "KLLM_LOG_FILE": os.environ.get("KLLM_LOG_FILE") or "/dev/stdout",
    }
    facts = {
        "cwd": str(server.parent),
        "yaml": text,
        "model_path": str(model),
        "model_type": config.get("model_type"),
        "model_config": attention_config(config),
        "packages": launching.versions(("ksana_llm", "torch", "transformers", "tokenizers")),
        "source_commit": commit_of(server.parent),
        **launching.place_facts(),
    }
    notes: tuple[str, ...] = (
        "KsanaLLM gets no swap space in host memory (block_host_memory_factor: 0.0, preempt_mode: 1), as vLLM has "
        "none: what it preempts is computed again. Nor is there a limit on its queue.",
    )
    notes += tuple(
        f"KsanaLLM's environment has {name}={os.environ[name]}." for name in OWN_VARIABLES if name in os.environ
    )
    launch = launching.Launch(argv, variables, settings, facts, notes)
    launch.record(launching.record_place())
    # It looks for ./lib there.
    launch.become("KsanaLLM", server.parent)


def joined(*parts: str | None) -> str:
    """A search path of the parts that there are."""
    return os.pathsep.join(part for part in parts if part)


def find_server() -> Path:
    """Where serving_server.py lies. Raises UserError when this image holds no usable KsanaLLM."""
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        server = Path(named)
        server = server / SERVER if server.is_dir() else server
        if not server.is_file():
            raise UserError(f"{SERVER_VARIABLE}={named}: there is no {SERVER}.")
    else:
        folders = places()
        found = [folder / SERVER for folder in folders if (folder / SERVER).is_file()]
        if not found:
            raise UserError(
                f"There is no KsanaLLM here: no {SERVER} in {', '.join(map(str, folders))}. Build one by upstream's "
                f"README and name it with KSANA_IMAGE; if it lies elsewhere, say where with {SERVER_VARIABLE}."
            )
        server = found[0]
    if not any((server.parent / "lib").glob("libtorch_serving*.so")) and not installed("libtorch_serving"):
        raise UserError(
            f"KsanaLLM in {server.parent} is not compiled: {server.parent / 'lib'} holds no libtorch_serving.so. "
            "Build it and link build/lib there, as upstream's README says."
        )
    if not (server.parent / "openaiapi").is_dir() and not installed("openaiapi"):
        raise UserError(
            f"KsanaLLM in {server.parent} has no folder openaiapi, so it has no chat endpoint: use the checkout's "
            "src/ksana_llm/python of a commit that has one."
        )
    return server


def places() -> list[Path]:
    """Folders where serving_server.py usually lies: in upstream's checkout, or in an installed wheel."""
    roots = [*filter(None, [os.environ.get(SOURCE_VARIABLE)]), *USUAL_CHECKOUTS]
    folders = [Path(root) / "src" / "ksana_llm" / "python" for root in roots]
    spec = importlib.util.find_spec("ksana_llm")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        folders += [Path(package), Path(package).parent]
    return folders


def installed(module: str) -> bool:
    """Whether the image's Python finds a module without our help."""
    return importlib.util.find_spec(module) is not None


def check_model(folder: Path, config: Mapping[str, Any], server_dir: Path) -> None:
    """Raise UserError for a model that KsanaLLM would refuse after a long start."""
    kind = str(config.get("model_type", "")).lower()
    if not is_supported(kind) and not has_weight_map(kind, folder, server_dir):
        raise UserError(
            f"KsanaLLM does not support this model: {folder / 'config.json'} says model_type {kind or 'nothing'!r} "
            f"({', '.join(config.get('architectures') or ['no architectures'])}). It supports model types that contain "
            f"{', '.join(MODEL_TYPES)}. If your build supports more, name them with {TYPES_VARIABLE}."
        )
    if not config.get("architectures"):
        raise UserError(f"{folder / 'config.json'} names no architectures, which KsanaLLM needs.")
    dtype = model_dtype(config)
    if dtype not in DTYPES and kind != "llama4":
        raise UserError(
            f"KsanaLLM does not support this model: {folder / 'config.json'} says torch_dtype {dtype!r}, and it "
            f"computes in {' or '.join(DTYPES)} only."
        )


def is_supported(kind: str) -> bool:
    """Whether KsanaLLM has an implementation for this model type."""
    extra = [name.strip().lower() for name in os.environ.get(TYPES_VARIABLE, "").split(",") if name.strip()]
    return any(name in kind for name in (*MODEL_TYPES, *extra))


def has_weight_map(kind: str, folder: Path, server_dir: Path) -> bool:
    """Whether a weight map tells how to read the model as a Llama (upstream's README, "Model Weight Map")."""
    name = f"{kind}_weight_map.json"
    return bool(kind) and any((place / name).is_file() for place in (folder, server_dir / "weight_map"))


def metrics_url() -> str:
    """Where KsanaLLM pushes its metrics. Raises UserError for what is no plain URL."""
    url = os.environ.get(METRICS_VARIABLE) or METRICS_URL
    if not url.startswith(("http://", "https://")) or "@" in url or not url.isprintable():
        raise UserError(f"{METRICS_VARIABLE} is not a URL such as {METRICS_URL} (without a password).")
    return url


def commit_of(folder: Path) -> str | None:
    """The commit of the checkout that holds this folder; None where there is none or it cannot be read."""
    git = next((parent / ".git" for parent in folder.parents if (parent / ".git").is_dir()), None)
    if git is None:
        return None
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head[len("ref: ") :]
        if (git / name).is_file():
            return (git / name).read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    launching.run(main)
