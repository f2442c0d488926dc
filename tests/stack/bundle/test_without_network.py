"""A small real bundle, made by pip from a folder of wheels, and environments of it in a namespace without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.settings import main_python
from tests.stack.bundle.shop import lock, wheel

HERE = Path(__file__).resolve().parents[3]
NO_NETWORK = ("unshare", "--map-root-user", "--net")
# Debian's package of Prometheus is not what is tried here, and a test asks no mirror.
NO_APT = "#!/bin/sh\necho no mirror >&2\nexit 1\n"


def why_not():
    """Why no namespace can be had here; empty if one can."""
    if not shutil.which("unshare"):
        return "there is no unshare"
    done = subprocess.run([*NO_NETWORK, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no network namespace may be made here: {why_not()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of what set-up is made of, with small lock files, and a folder that has their wheels."""
    folder = tmp_path_factory.mktemp("bundle")
    checkout, shop = folder / "checkout", folder / "shop"
    for name in ("stack", "loadgen", "exporters"):
        shutil.copytree(HERE / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    own = wheel(shop, "own")
    lock(checkout / "requirements.lock", own, wheel(shop, "other", "2.0"))
    lock(checkout / "stack/engines/llamacpp/requirements.lock", wheel(shop, "engine"))
    lock(checkout / "grafana/annotator/requirements.lock", own)
    apt = folder / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(NO_APT)
    apt.chmod(0o755)
    run(checkout, {"PIP_FIND_LINKS": str(shop), "PIP_NO_INDEX": "1", "PATH": f"{apt.parent}:{os.environ['PATH']}"},
        main_python(HERE), "-m", "stack", "bundle", "--part-mb", "1", "--engine", "llamacpp", "../bundle")  # fmt: skip
    shutil.rmtree(shop)
    return checkout


def run(checkout, variables, *command, status=0):
    """Run a command in the copy; returns what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "BAKEOFF_"))}
    done = subprocess.run(
        command, cwd=checkout, env=environment | variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def without_network(checkout, *command, bundle="../bundle", status=0):
    # An index that pip is configured for must not be asked either.
    variables = {"BAKEOFF_BUNDLE": bundle, "PIP_INDEX_URL": "http://192.0.2.1/simple", "PIP_CONSTRAINT": "/nowhere"}
    return run(checkout, variables, *NO_NETWORK, *command, status=status)


def test_our_environment_and_another_are_made_without_a_network(place):
    said = without_network(place, sys.executable, "-m", "stack.before", "setup")
    said += without_network(place, sys.executable, "-m", "stack.own_venv")
    assert "Bakeoff: .venv made" in said
    python = place / ".venv" / "bin" / "python"
    assert run(place, {}, python, "-c", "import own, other; print(own.VERSION, other.VERSION)") == "1.0 2.0\n"
    ensure = "from stack import setup; from loadgen.settings import Paths; from pathlib import Path as P"
    code = f"{ensure}; setup.ensure_venv(Paths(P.cwd()), setup.ANNOTATOR)"
    assert "Grafana's client: environment made" in without_network(place, main_python(HERE), "-c", code)
    assert (place / ".bakeoff" / "bundle" / "wheels").is_dir(), "put together from parts"


def test_a_part_that_was_not_carried_is_one_message(place, tmp_path):
    shutil.copytree(place.parent / "bundle", tmp_path / "carried")
    (tmp_path / "carried" / "part-001").unlink()
    said = without_network(
        place, sys.executable, "-m", "stack.before", "setup", bundle=str(tmp_path / "carried"), status=2
    )
    assert said == f"error: the bundle in {tmp_path}/carried cannot be used here:\n- part-001 is missing, of 1 in all\n"
