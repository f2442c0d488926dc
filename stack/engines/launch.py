"""What every engine launcher shares: its options and the record of what was launched.

Standard library only: this runs in the engines' environments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen.engines.serving import NativeSetting, block_facts, read_block
from loadgen.errors import UserError
from stack.cpus import available_cpus, format_cpus, parse_cpus, stay_on
from stack.engines.launching import read_serving, versions, write_json


def parse_options(description: str) -> argparse.Namespace:
    """Read the options that every engine launcher takes, and move onto the engine's cores.

    `asked` holds the serving settings; context and parallel sequences are as asked for there.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="model file or folder")
    parser.add_argument("--model-stamp", type=Path, required=True, help="JSON with the SHA-256 of the weights")
    parser.add_argument("--served-name", required=True, help="the name clients ask for")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cpus", type=parse_cpus, help="cores, as in 0-2,5 (default: all that this process may use)")
    parser.add_argument("--context-tokens", type=int, required=True, help="longest prompt plus output")
    parser.add_argument("--parallel", type=int, required=True, help="sequences served at once")
    parser.add_argument("--state-dir", type=Path, required=True, help="working folder of this engine")
    parser.add_argument("--record", type=Path, required=True, help="where to write what was launched")
    parser.add_argument("--eager", action="store_true", help="vLLM: do not compile the model")
    parser.add_argument("--serving", type=Path, help="JSON file of serving settings; default: BAKEOFF_SERVING_JSON")
    options = parser.parse_args()
    try:
        options.asked = read_block(options.serving.read_text(encoding="utf-8")) if options.serving else read_serving()
    except FileNotFoundError:
        options.asked = {}
    except (OSError, UserError) as error:
        parser.error(f"{options.serving or 'the environment'}: {error}")
    options.context_tokens = options.asked.get("max_model_length", options.context_tokens)
    options.parallel = options.asked.get("max_batch_size", options.parallel)
    options.state_dir.mkdir(parents=True, exist_ok=True)
    options.cpus = options.cpus or available_cpus()
    options.pinned = stay_on(options.cpus)
    return options


def write_record(
    options: argparse.Namespace,
    *,
    argv: Sequence[str],
    environment: Mapping[str, str],
    packages: Sequence[str],
    weights: str,
    notes: Sequence[str],
    serving: Sequence[NativeSetting],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write all that tells how this engine was launched (only what the launcher itself set, so no secrets)."""
    stamp = json.loads(options.model_stamp.read_text(encoding="utf-8"))
    record = {
        "pid": os.getpid(),
        "started_unix_s": time.time(),
        "argv": list(argv),
        "environment": dict(sorted(environment.items())),
        "settings": dict(settings or {}),
        "python": platform.python_version(),
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
        "notes": list(notes),
    }
    if options.asked:
        record["serving"] = block_facts(list(serving))
    write_json(options.record, record)
    for note in [*notes, *filter(None, (setting.remark() for setting in serving))]:
        print(f"note: {note}", file=sys.stderr, flush=True)
