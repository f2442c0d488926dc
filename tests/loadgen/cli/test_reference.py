"""docs/cli.md: what every command says of itself, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from loadgen.cli.reference import reference

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_the_reference_is_what_the_program_prints(monkeypatch):
    for columns in ("200", "50"):
        monkeypatch.setenv("COLUMNS", columns)
        assert reference() == PAGE.read_text(encoding="utf-8"), "run: make docs"


def test_it_is_the_help_of_every_command(loadgen):
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = re.findall(r"^## bakeoff (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == len(blocks) - 1
    assert all(re.search(rf"^  {name}\b", blocks[0], re.MULTILINE) for name in commands)
    for words, block in zip([[], *([name] for name in commands)], blocks, strict=True):
        printed = loadgen(*words, "--help", COLUMNS="80").stdout
        assert block.split() == printed.split()
        assert [line.rstrip() for line in printed.strip().splitlines()] == block.splitlines()
