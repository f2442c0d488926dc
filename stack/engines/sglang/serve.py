"""Start SGLang on a GPU: the serving settings become its command line. Runs with the Python that has SGLang.

That is its image's, or the one of an environment. The folder three levels up has to hold `loadgen/`. Reads
BAKEOFF_MODEL (a folder or a hub name), BAKEOFF_SERVED_NAME, BAKEOFF_ADDRESS, BAKEOFF_PORT (30000),
BAKEOFF_SERVING_FILE, BAKEOFF_LAUNCH_RECORD and BAKEOFF_STATE_DIR; a hub token is read from a file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from loadgen.engines.sglang import SGLang, api_server, translate
from stack.engines import launching

ENVIRONMENT = {
    # Else whoever asks whether it is well has it compute a token, in mid-measurement.
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
}


def main() -> NoReturn:
    """Check what has to be there, and become SGLang's server."""
    launching.Server(
        title="SGLang",
        kind=SGLang.kind,
        packages=("sglang", "torch", "transformers", "tokenizers"),
        port=30000,
        environment=ENVIRONMENT,
        translate=translate,
        command=api_server,
        reset_variable=SGLang.cache_reset_variable,
    ).become()


if __name__ == "__main__":
    launching.run(main)
