"""What the launchers of the CPU engines share: their options, and the facts of a launch that follow from them.

Standard library only: this runs in the engines' environments and images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.machine import format_cpus, parse_cpus
from stack.cpus import available_cpus, stay_on
from stack.engines.launching import place_facts, read_serving, versions
from stack.engines.stamps import stamp_path


def parse_options(description: str) -> argparse.Namespace:
    """Read the options that every launcher of a CPU engine takes, and move onto the engine's cores.

    `asked` holds the serving settings; context and parallel sequences are as asked for there.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="model file or folder, with its stamp beside it")
    parser.add_argument("--served-name", required=True, help="the name clients ask for")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cpus", type=parse_cpus, help="cores, as in 0-2,5 (default: all that this process may use)")
    parser.add_argument("--context-tokens", type=int, required=True, help="longest prompt plus output")
    parser.add_argument("--parallel", type=int, required=True, help="sequences served at once")
    parser.add_argument("--state-dir", type=Path, required=True, help="working folder of this engine")
    parser.add_argument("--record", type=Path, required=True, help="where to write what was launched")
    parser.add_argument("--eager", action="store_true", help="vLLM: do not compile the model")
    options = parser.parse_args()
    try:
        options.asked = read_serving()
    except UserError as error:
        parser.error(str(error))
    options.context_tokens = options.asked.get("max_model_length", options.context_tokens)
    options.parallel = options.asked.get("max_batch_size", options.parallel)
    options.state_dir.mkdir(parents=True, exist_ok=True)
    options.cpus = options.cpus or available_cpus()
    options.pinned = stay_on(options.cpus)
    return options


def launch_facts(options: argparse.Namespace, packages: Sequence[str], weights: str) -> dict[str, Any]:
    """What the launch record tells of model, cores and limits; `weights` says in words how the model is kept."""
    stamp = json.loads(stamp_path(options.model).read_text(encoding="utf-8"))
    return {
        "packages": versions(packages),
        "model_path": str(options.model),
        "model_sha256": stamp["sha256"],
        "model_source_sha256": stamp.get("source_sha256", stamp["sha256"]),
        "weights": weights,
        "cpus": format_cpus(options.cpus),
        "cpus_pinned": options.pinned,
        "threads": len(options.cpus),
        "context_tokens": options.context_tokens,
        "parallel_sequences": options.parallel,
        **place_facts(),
    }
