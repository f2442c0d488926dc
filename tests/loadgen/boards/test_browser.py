"""The page in a real browser, where there is one: every plot is drawn, and its script meets no error."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from loadgen.boards.page import build_page
from tests.fake_prometheus import matrix
from tests.loadgen.boards.boards import board, panel
from tests.loadgen.boards.test_page import END, START, manifest, serve

pytestmark = pytest.mark.integration


@pytest.fixture
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium")
    return found


def test_every_plot_is_drawn(browser, tmp_path, fake):
    points = [(START + i, i) for i in range(61) if i != 30]
    both = matrix(({"engine": "vllm"}, points), ({"engine": "ksana"}, points[:1]))
    prometheus = serve(fake, {"a": both, "v": matrix(({"engine": "vllm"}, points))})
    shown = board(
        panel("Lines", "v"),
        panel("Both", "a", bad_from=20),
        panel("States", "a", kind="state-timeline"),
        panel("Figure", "a", kind="stat"),
    )
    page = build_page([shown], prometheus, START, END, title="t", manifest=manifest(("vllm", 0, 20), ("ksana", 25, 50)))
    path = tmp_path / "page.html"
    path.write_text(page.html, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    options += ["--virtual-time-budget=20000", "--window-size=1400,3000", "--dump-dom"]
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr  # errors, and what the page's own policy had to stop
    plots = done.stdout.split('<div class="plot"')[1:]
    assert len(plots) == 4  # the blocks' too
    assert all('class="main-svg"' in plot for plot in plots)
    # A gap in the middle: the line is drawn as two.
    assert plots[1].count('class="js-line"') == 2
