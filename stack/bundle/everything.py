"""Set up all that a bundle holds at once, so that it is not needed afterwards."""

from __future__ import annotations

from loadgen.settings import Paths, load_settings
from stack import setup
from stack.bundle.manifest import PROMETHEUS, Bundle
from stack.commands import say
from stack.processes.binaries import fetch_prometheus, find_prometheus


def set_up_all(paths: Paths, source: Bundle) -> None:
    """Make all environments that a bundle holds, the model and Prometheus. Raises UserError."""
    held = source.manifest.sets
    engines = [name for name in setup.ENGINES if name in held]
    if engines:
        setup.check_disk(paths, engines)
    for name in engines:
        setup.ensure_engine(paths, name)
    for name in (setup.VLLM_GPU, setup.ANNOTATOR):
        if name in held:
            setup.ensure_venv(paths, name)
    lacking = PROMETHEUS in held and not find_prometheus(load_settings(paths.checkout), paths)
    if lacking and (why := fetch_prometheus(paths)):
        say(f"Prometheus is not here: {why}")
    source.forget()
