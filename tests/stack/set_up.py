"""Whether engines are set up in this checkout, for tests that want real ones."""

from __future__ import annotations

from pathlib import Path

from loadgen.settings import Paths
from stack.engines.stamps import is_intact


def has_llamacpp(checkout: Path) -> bool:
    """Whether llama.cpp's environment and its model are there."""
    paths = Paths(checkout)
    stamp = paths.venv("llamacpp") / "bakeoff.stamp"  # written when the environment is complete
    return stamp.is_file() and is_intact(paths.gguf, {"form": "gguf"}, full=False)
