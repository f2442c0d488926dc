"""For all tests of the load generator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.report import figures
from tests.loadgen.command_line import CommandLine


@pytest.fixture(scope="module")
def loadgen() -> Iterator[CommandLine]:
    """`python -m loadgen`, kept up between calls; `run` comes first, or not at all, because gevent must patch first."""
    command = CommandLine()
    yield command
    command.close()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports get empty pictures: drawing takes most of their time, and only some tests look at pictures."""

    def save(figure: object, path: Path, caption: str) -> figures.Picture:
        path.write_bytes(b"")
        return figures.Picture(path, caption)

    monkeypatch.setattr(figures, "draw_svg", lambda *_: '<svg class="plot" role="img"></svg>')
    monkeypatch.setattr(figures, "save", save)
