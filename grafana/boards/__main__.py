"""`python -m grafana.boards`: build the boards' JSON, or check that the committed one is what the code builds."""

from __future__ import annotations

import typer

from grafana.boards.files import FOLDER, differences, write
from loadgen.errors import UserError
from stack.commands import run_command, say

app = typer.Typer(
    help="Grafana's boards as code.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.command()
def build() -> None:
    """Write grafana/dashboards/*.json."""
    changed = write(FOLDER)
    for path in changed:
        say(f"changed: {path.name}")
    if not changed:
        say("the boards are as they were")


@app.command()
def check() -> None:
    """Fail if the committed JSON is not what the code builds."""
    if problems := differences(FOLDER):
        lines = (f"{path} {problem}" for path, problem in problems.items())
        raise UserError("\n".join([*lines, "Run `make boards` and commit what it writes."]), exit_code=1)


if __name__ == "__main__":
    run_command(app)
