"""For all tests of the load generator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from loadgen.report import figures
from tests.loadgen.command_line import CommandLine


@pytest.fixture(scope="module")
def loadgen() -> Iterator[CommandLine]:
    """`python -m loadgen`, kept up between calls; `run` comes first, or not at all, because gevent must patch first."""
    command = CommandLine()
    yield command
    command.close()


@pytest.fixture(autouse=True)
def picture_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports get empty PNG files where a test is not marked `png`: they hold what the page's SVG shows once more."""
    if request.node.get_closest_marker("png"):
        return

    def save(figure: object, path: Path, caption: str) -> figures.Picture:
        path.write_bytes(b"")
        return figures.Picture(path, caption)

    monkeypatch.setattr(figures, "_png", lambda *_: Figure())
    monkeypatch.setattr(figures, "save", save)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports get no plots at all: drawing takes most of their time, and only some tests look at them."""
    monkeypatch.setattr(figures, "draw_svg", lambda *_: '<svg class="plot" role="img"></svg>')
