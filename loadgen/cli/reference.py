"""The command-line reference: `python -m loadgen.cli.reference` prints it, and docs/cli.md holds it."""

from __future__ import annotations

from typing import Any

import typer

from loadgen.cli.app import app

COLUMNS = 80
HEAD = """\
# The command line

Made from `--help` by `make docs`; a test holds it to that. `python -m loadgen` is the same as `bakeoff`.
[Exit codes](compare.md#exit-codes) are those of all commands.
"""


def reference() -> str:
    """Every command's help, as a terminal of 80 columns shows it, in Markdown."""
    options: dict[str, Any] = {"resilient_parsing": True, "terminal_width": COLUMNS - 2}
    group: Any = typer.main.get_command(app)
    context = group.make_context("bakeoff", [], **options)
    parts = [HEAD, _block(group.get_help(context))]
    for name, command in group.commands.items():
        parts += [f"## bakeoff {name}\n", _block(command.get_help(command.make_context(name, [], context, **options)))]
    return "\n".join(parts)


def _block(text: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
