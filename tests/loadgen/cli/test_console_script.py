"""`bakeoff`, as `make setup` and pip put it beside their Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_bakeoff_is_a_command_anywhere(tmp_path):
    command = [Path(sys.executable).with_name("bakeoff"), "scenarios"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and not done.stderr
    assert "smoke" in done.stdout
