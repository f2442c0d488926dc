"""Convert the mounted GGUF into /state unless that was done, then serve it (stack.engines.vllm.serve).

Takes that launcher's options; `--gguf` in place of `--model` and `--model-stamp`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from stack.engines.vllm import convert, serve
from stack.model import expected_hf, is_intact, stamp_hf, stamp_path


def prepare(gguf: Path, folder: Path) -> None:
    """Make the folder that vLLM serves, or find it intact."""
    if not gguf.is_file():
        sys.exit(f"error: there is no model {gguf} in this container: `make up` puts it there")
    expected = expected_hf(gguf)
    if is_intact(folder, expected, full=False):
        return
    print(f"converting {gguf.name} for vLLM, once", flush=True)
    stamp_path(folder).unlink(missing_ok=True)
    for left in (folder, *folder.parent.glob(f".{folder.name}-*")):
        shutil.rmtree(left, ignore_errors=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    convert.convert(gguf, folder)
    stamp_hf(folder, expected)


def main() -> None:
    """Convert and serve."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    known, rest = parser.parse_known_args()
    folder = known.state_dir / "model"
    prepare(known.gguf, folder)
    sys.argv[1:] = [
        *rest,
        *("--state-dir", str(known.state_dir)),
        *("--model", str(folder), "--model-stamp", str(stamp_path(folder))),
    ]
    serve.main()


if __name__ == "__main__":
    main()
