"""Start vLLM on a GPU: the serving settings become its command line. Runs with the Python that has vLLM.

That is its image's, or the one of an environment. The folder three levels up has to hold `loadgen/`. Reads
BAKEOFF_MODEL (a folder or a hub name), BAKEOFF_SERVED_NAME, BAKEOFF_ADDRESS, BAKEOFF_PORT (8000),
BAKEOFF_SERVING_FILE, BAKEOFF_LAUNCH_RECORD and BAKEOFF_STATE_DIR; a hub token is read from a file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from loadgen.engines.vllm import VLLM, api_server, translate
from stack.engines import launching

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def main() -> NoReturn:
    """Check what has to be there, and become vLLM's API server."""
    launching.Server(
        title="vLLM",
        kind=VLLM.kind,
        packages=("vllm", "torch", "transformers", "tokenizers"),
        port=8000,
        environment=ENVIRONMENT,
        translate=translate,
        command=api_server,
        reset_variable=VLLM.cache_reset_variable,
    ).become()


if __name__ == "__main__":
    launching.run(main)
