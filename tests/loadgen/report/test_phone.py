"""A report in a real browser as wide as a phone: its verdicts are read without scrolling sideways."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loadgen.report import write_report
from loadgen.runs.folder import RunFolder

pytestmark = pytest.mark.integration
RACE = Path(__file__).parents[3] / "docs/results/20261128-092254-seed-matrix-h200"
"""21 rows, of which some have the longest figures that there are."""
MEASURE = """<script>addEventListener("load", () => {
  const place = document.querySelector("table.verdicts").parentElement, root = document.documentElement;
  const found = {page: [root.scrollWidth, root.clientWidth], table: [place.scrollWidth, place.clientWidth]};
  parent.postMessage("found" + JSON.stringify(found), "*");
});</script></body>"""
PHONE = """<script>addEventListener("message", event => document.title = event.data)</script>
<iframe src="phone.html" style="border: 0; width: 390px; height: 844px"></iframe>"""


def test_verdicts_fit_a_phone(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    shutil.copytree(RACE, tmp_path / "run")
    write_report(RunFolder(tmp_path / "run"), prometheus_url=None)
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "phone.html").write_text(report.replace("</body>", MEASURE), encoding="utf-8")
    (tmp_path / "page.html").write_text(PHONE, encoding="utf-8")  # a window is never as narrow as that itself
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--virtual-time-budget=20000", "--window-size=800,900", "--dump-dom"]
    command = [browser, *options, f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = re.search(r"<title>found(.*?)</title>", done.stdout)
    assert told, done.stdout[:2000]
    for what, (needed, there) in json.loads(told[1]).items():
        assert needed <= there, what
