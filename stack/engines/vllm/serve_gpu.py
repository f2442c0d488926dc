"""Start vLLM on a GPU: the serving settings become its command line. Runs with the Python that has vLLM.

That is its image's, or the one of an environment. The folder three levels up has to hold `loadgen/`. Reads
BAKEOFF_MODEL (a folder or a hub name), BAKEOFF_SERVED_NAME, BAKEOFF_ADDRESS, BAKEOFF_PORT (8000),
BAKEOFF_SERVING_FILE, BAKEOFF_LAUNCH_RECORD and BAKEOFF_STATE_DIR; a hub token is read from a file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from loadgen.engines.model_config import attention_config
from loadgen.engines.vllm import VLLM, api_server, translate
from loadgen.errors import UserError
from stack.engines import launching

TOKEN_VARIABLE = "BAKEOFF_HF_TOKEN_FILE"  # noqa: S105 - the name of a file
TOKEN_FILE = "/run/secrets/hf_token"  # noqa: S105
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def main() -> NoReturn:
    """Check what has to be there, and become vLLM's API server."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"There is no vLLM for {sys.executable}: name an image that has it with VLLM_IMAGE, or without containers "
            "a Python with BAKEOFF_VLLM_PYTHON."
        )
    model = launching.need_model()
    # A hub's model is fetched by vLLM itself.
    config = launching.read_model(Path(model)) if is_folder_name(model) else {}
    asked = launching.read_serving()
    launching.check_cards(VLLM.kind, asked, config)
    settings = translate(asked)
    served_name = os.environ.get("BAKEOFF_SERVED_NAME")
    argv = api_server(model, served_name, launching.read_address(), launching.read_port(8000), settings)
    # vLLM is started as a module, which puts the working folder on its import path.
    cwd = launching.state_dir()
    facts = {
        "cwd": str(cwd),
        "model_path": model,
        "model_config": attention_config(config),
        "packages": launching.versions(("vllm", "torch", "transformers", "tokenizers")),
        **launching.place_facts(),
    }
    opened, notes = launching.for_resets(VLLM.cache_reset_variable)
    launch = launching.Launch(argv, {**ENVIRONMENT, **opened}, settings, facts, notes, secrets=hub_token())
    launch.record(launching.record_place())
    launch.become("vLLM", cwd)


def is_folder_name(model: str) -> bool:
    """Whether this names a folder rather than a model on a hub (`owner/name`)."""
    return model.startswith(("/", ".")) or Path(model).exists()


def hub_token() -> dict[str, str]:
    """The hub's token for vLLM's environment; empty where no secret is mounted. Raises UserError."""
    path = Path(os.environ.get(TOKEN_VARIABLE) or TOKEN_FILE)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"The hub token in {path} cannot be read: {error}") from None
    return {"HF_TOKEN": token} if token else {}


if __name__ == "__main__":
    launching.run(main)
