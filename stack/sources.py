"""Where set-up's files come from: what pip and apt are configured for, or with BAKEOFF_BUNDLE a bundle alone.

Standard library only: `.venv` is made from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.bundle.manifest import PACKAGES, PROMETHEUS, Bundle, hash_of
from stack.commands import run_logged

VARIABLE = "BAKEOFF_BUNDLE"
UNPACKED = Path(__file__).resolve().parents[1] / ".bakeoff" / "bundle"
"""Where a bundle's files are put together from parts."""
NO_CONFIGURATION = {"PIP_CONFIG_FILE": os.devnull}
NETWORK_ADVICE = "If it is the network, try again: what was done is kept."
BUNDLE_ADVICE = "Nothing was asked of a network: all files came from the bundle."


def bundle(environ: Mapping[str, str] = os.environ) -> Bundle | None:
    """The bundle that all files are to come from; None for the network. Raises UserError without its manifest."""
    named = environ.get(VARIABLE, "").strip()
    return Bundle(Path(named).expanduser().absolute(), UNPACKED) if named else None


def advice() -> str:
    """What to do where an installation failed."""
    return BUNDLE_ADVICE if os.environ.get(VARIABLE, "").strip() else NETWORK_ADVICE


def install(
    python: Path, options: Sequence[str], *, name: str, lock: Path | None, what: str, log: Path, index: str = ""
) -> bool:
    """Have pip install packages.

    Args:
        python: the environment's own.
        options: of `pip install`, packages among them.
        name: the set of the bundle that holds them.
        lock: the file that says what the set holds; None: the set is not of a lock file.
        what: what is done, in words.
        log: where pip's output goes.
        index: the one index to ask instead of pip's configured sources; a bundle is asked all the same.

    Returns:
        Whether it succeeded.

    Raises:
        UserError: the bundle cannot supply it.
    """
    source = bundle()
    if source is None:
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        return run_logged([*pip, *(("--index-url", index) if index else ()), *options], what=what, log=log)
    wheels = source.supply(name, hash_of(lock) if lock else "") / PACKAGES
    # No configuration of this machine may add an index or forbid what the bundle holds.
    pip = [str(python), "-m", "pip", "--isolated", "install", "--disable-pip-version-check"]
    offline = ("--no-index", "--find-links", str(wheels))
    return run_logged([*pip, *offline, *options], what=what, log=log, environment=NO_CONFIGURATION)


def prometheus_package() -> Path | None:
    """Debian's package of Prometheus from the bundle; None where there is no bundle or it holds none."""
    source = bundle()
    if source is None or PROMETHEUS not in source.manifest.sets:
        return None
    home = source.supply(PROMETHEUS, "")
    return home / source.manifest.sets[PROMETHEUS].files[0]
