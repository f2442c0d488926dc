"""The table of failures in docs/methodology.md has every kind, and the exit code that the program gives."""

import re
from pathlib import Path

import pytest

from loadgen.client.health import ProbeReport
from loadgen.errors import end_code
from loadgen.metrics.summary import summarise
from loadgen.metrics.window import CutRule
from loadgen.quick.measure import QuickRun
from loadgen.quick.result import QuickResult
from loadgen.record import REJECTIONS, ErrorKind
from loadgen.scenario.cell import Cell
from tests.loadgen.records import MS, record
from tests.loadgen.traffic.test_plan import plan

DOCS = Path(__file__).parents[3] / "docs"
ROW = re.compile(r"^\| (`[^|]+) \|[^|]+\| (\d) \|$", re.MULTILINE)
TABLE = {
    kind: int(code)
    for kinds, code in ROW.findall((DOCS / "methodology.md").read_text())
    for kind in re.findall(r"`(\w+)`", kinds)
}
KINDS = [*map(str, ErrorKind), *REJECTIONS, "http_500"]


def answered(error, number):
    """One request of the only user, which succeeded or failed."""
    fields = {"output_tokens": 2, "finish_reason": "length"} if error is None else {"error": error}
    return record(number * 100 * MS, [10 * MS, 20 * MS], index=number, **fields)


def test_the_table_has_every_kind_once():
    text = (DOCS / "methodology.md").read_text()
    assert {kind for kind in TABLE if not kind.startswith("http_")} == set(map(str, ErrorKind))
    rows = [kind for kinds, _ in ROW.findall(text) for kind in re.findall(r"`(\w+)`", kinds)]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_of_each_kind(kind):
    wanted = TABLE.get(kind, TABLE["http_429"])
    records = [answered(None, 0), answered(kind, 1), answered(None, 2)]
    asked = plan(cell=Cell(64, 9, 1), requests=None, warmup_requests=0)
    run = QuickRun(asked, "w", records, ProbeReport(), 6, interrupted=False, gave_up=False, write_error=None)
    result = QuickResult.of(run)
    assert end_code(failed=result.failed, limited=False) == wanted
    assert end_code(failed=result.failed, limited=True) == (wanted or 6)
    cut = CutRule(1, 0, None).cut(records)
    in_a_race = summarise([(records, cut.measured(records), cut.window)])
    assert end_code(failed=bool(in_a_race.errors), limited=False) == wanted
