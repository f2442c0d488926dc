"""The boards' PromQL: Prometheus itself reads it, it names nothing that does not exist, and it says what is true."""

import functools
import json
import re
import subprocess

import pytest

from grafana.boards.files import texts
from loadgen.boards.catalogue import BOARDS
from loadgen.boards.catalogue.queries import filled as filled_over
from tests.prometheus.conftest import CHECKOUT
from tests.prometheus.rule_files import Rule, all_rules
from tests.prometheus.test_source_metrics import SERVED

BOARD_TEXTS = {name: json.loads(text) for name, text in texts().items()}
QUERIES = [(board.uid, panel.title, query) for board in BOARDS for panel in board.panels() for query in panel.queries]
OF_PROMETHEUS = {"ALERTS"}


def filled(expr, *, minutes=10, **chosen):
    """The expression as it is asked: choices put in, everything chosen unless told otherwise."""
    return filled_over(expr, 60 * minutes, chosen)


@pytest.mark.parametrize("expr", ['x{a=~"$nope"}', "x$", 'label_replace(x, "a", "$1", "b", "(.*)")'])
def test_a_dollar_sign_before_anything_but_a_choice_is_an_error(expr):
    with pytest.raises((KeyError, ValueError)):
        filled(expr)


def query_of(title, uid="bakeoff", number=0):
    (panel,) = (panel for board in BOARDS if board.uid == uid for panel in board.panels() if panel.title == title)
    return panel.queries[number].expr


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def check_rules(promtool, folder, expressions):
    rules = [{"record": f"r{index}", "expr": expr} for index, expr in enumerate(expressions)]
    path = folder / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    return run(promtool, "check", "rules", "--lint=none", path)


def test_prometheus_reads_every_query(promtool, tmp_path):
    marks = [each["expr"] for board in BOARD_TEXTS.values() for each in board["annotations"]["list"] if "expr" in each]
    expressions = [filled(text) for text in [*(query.expr for *_, query in QUERIES), *marks]]
    assert "$" not in "".join(expressions)
    result = check_rules(promtool, tmp_path, expressions)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(expressions)} rules found" in result.stdout


def test_prometheus_refuses_a_broken_query(promtool, tmp_path):
    result = check_rules(promtool, tmp_path, [filled(query_of("TTFT p95")).replace("sum by", "sun by")])
    assert result.returncode != 0


@functools.cache
def known_names():
    recorded = {rule.name for rule in all_rules() if rule.records}
    return OF_PROMETHEUS | recorded | {name for _, names in SERVED.values() for name in names()}


def unknown(name_of_place, expr):
    return [f"{name_of_place} reads {name}" for name in Rule("", expr, True).metrics() - known_names()]


def test_every_series_that_a_query_reads_is_one_that_somebody_serves():
    assert [line for uid, title, query in QUERIES for line in unknown(f"{uid}: {title}", query.expr)] == []


def test_choices_read_series_that_somebody_serves():
    for board in BOARD_TEXTS.values():
        for variable in board["templating"]["list"][1:]:
            query = variable["query"]["query"]
            assert re.fullmatch(r"label_values\(.+, \w+\)", query)
            names = re.findall(r'(?:\(|=~"|\|)(bakeoff_\w+)', query)
            assert names and set(names) <= known_names(), query


def test_a_series_that_nobody_serves_is_found():
    broken = query_of("Host memory").replace("bakeoff_engine_memory_bytes", "bakeoff_engine_memory_byte")
    assert unknown("here", broken) == ["here reads bakeoff_engine_memory_byte"]


def test_what_is_recorded_is_read_where_it_can_be():
    read = {name for *_, query in QUERIES for name in Rule("", query.expr, True).metrics()}
    recorded = {rule.name for rule in all_rules() if rule.name.startswith("engine:")}
    assert recorded - read == set(), "a figure of every engine that no board shows"
    for name in read:
        assert not name.startswith(("vllm:", "llamacpp:")), "engines' own names are for prometheus/rules.yml"


@pytest.fixture
def evaluate(promtool, tmp_path):
    """Ask Prometheus' own engine over made-up series: `evaluate(series, expr, at)` gives values by labels."""

    def ask(series, expr, at="10m", wanted=()):
        case = {
            "rule_files": [str(CHECKOUT / "prometheus" / "rules.yml")],
            "evaluation_interval": "5s",
            "tests": [
                {
                    "interval": "5s",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": expr,
                            "eval_time": at,
                            "exp_samples": [{"labels": labels, "value": value} for labels, value in wanted],
                        }
                    ],
                }
            ],
        }
        path = tmp_path / "case.yml"
        path.write_text(json.dumps(case))
        result = run(promtool, "test", "rules", path)
        return result.returncode == 0, result.stdout + result.stderr

    return ask


def block(engine, cell, values):
    labels = f'run_id="r1",scenario="s",block="{engine}-{cell}",engine="{engine}",cell="{cell}"'
    return {f"bakeoff_client_block_info{{{labels}}}": values}


def client(metric, engine, cell, values, more=""):
    return {f'{metric}{{engine="{engine}",model="m",scenario="s",cell="{cell}"{more}}}': values}


TWO_ENGINES = {
    # Requests of 2 s and of 3 s mean; the second cell was run by one engine only.
    **client("bakeoff_client_ttft_seconds_sum", "a", "c1", "0+10x30 300x100"),
    **client("bakeoff_client_ttft_seconds_count", "a", "c1", "0+5x30 150x100"),
    **client("bakeoff_client_ttft_seconds_sum", "b", "c1", "0x40 0+12x30 360x60"),
    **client("bakeoff_client_ttft_seconds_count", "b", "c1", "0x40 0+4x30 120x60"),
    **client("bakeoff_client_ttft_seconds_sum", "a", "c2", "0+1x130"),
    **client("bakeoff_client_ttft_seconds_count", "a", "c2", "0+1x130"),
}


def test_the_slower_engine_is_shown_with_by_how_much(evaluate):
    expr = f"round({filled(query_of('TTFT mean, above the least'), minutes=9)}, 0.0001)"
    wanted = [('{engine="b",scenario="s",cell="c1"}', 0.5)]
    good, said = evaluate(TWO_ENGINES, expr, wanted=wanted)
    assert good, said
    assert not evaluate(TWO_ENGINES, expr, wanted=[])[0], "the case can fail"


def test_one_engine_alone_is_compared_with_nothing(evaluate):
    expr = filled(query_of("TTFT mean, above the least"), minutes=9, engine="a")
    good, said = evaluate(TWO_ENGINES, expr, wanted=[])
    assert good, said


def test_throughput_is_by_the_time_of_an_engines_own_blocks(evaluate):
    series = {
        # 100 s with 10 tokens a second, and 50 s with 40.
        **client("bakeoff_client_output_tokens_total", "a", "c1", "0+50x20 1000x120"),
        **client("bakeoff_client_output_tokens_total", "b", "c1", "0x40 0+200x10 2000x90"),
        **block("a", "c1", "1x19 stale"),
        **block("b", "c1", "_x40 1x9 stale"),
    }
    expr = f"round({filled(query_of('Output tokens/s, below the most'))}, 0.05)"
    good, said = evaluate(series, expr, wanted=[('{engine="a",scenario="s",cell="c1"}', 0.75)])
    assert good, said


def test_a_run_that_is_chosen_shows_its_own_time_only(evaluate):
    series = {
        'bakeoff_engine_memory_bytes{engine="a",kind="pss"}': "7x130",
        **block("a", "c1", "_x60 1x20 stale"),
    }
    shown = [('{engine="a"}', 7)]
    for at, run_id, wanted in (("6m", "r1", shown), ("2m", "r1", []), ("2m", ".*", shown), ("6m", "r2", [])):
        expr = filled(query_of("Host memory"), run=run_id)
        good, said = evaluate(series, expr, at=at, wanted=wanted)
        assert good, (at, run_id, said)


def test_quantiles_are_of_the_chosen_cell_and_absent_without_requests(evaluate):
    series = {}
    for cell, bound in (("c1", 1), ("c2", 4)):
        series |= block("a", cell, "1x130")
        for le in ("1", "2", "4", "+Inf"):
            count = "0+6x60 360x70" if float(le.replace("+Inf", "inf")) >= bound else "0x130"
            series |= client("bakeoff_client_ttft_seconds_bucket", "a", cell, count, f',le="{le}"')
    expr = query_of("TTFT p50")
    for cell, at, wanted in (("c1", "4m", 0.5), ("c2", "4m", 3.0), ("c1", "9m", None)):
        samples = [] if wanted is None else [('{engine="a"}', wanted)]
        good, said = evaluate(series, filled(expr, cell=cell), at=at, wanted=samples)
        assert good, (cell, at, said)


def test_the_verdict_is_that_of_the_block_that_runs(evaluate):
    series = {
        'bakeoff_client_limited{engine="a",cell="c1"}': "1x130",
        **block("a", "c1", "1x20 stale"),
    }
    expr = filled(query_of("Limited by the client", "bakeoff-client"))
    assert evaluate(series, expr, at="1m", wanted=[('{engine="a"}', 1)])[0]
    assert evaluate(series, expr, at="5m", wanted=[])[0], "the verdict on a block that ended is not on the next engine"


def test_the_line_of_an_objective_is_the_alerts_and_only_where_the_scenario_has_one(evaluate):
    alerts = {rule.name: rule.expression for rule in all_rules() if not rule.records}
    for title, alert in (("TTFT p95", "TtftObjectiveMissed"), ("TPOT p95", "TpotObjectiveMissed")):
        (panel,) = (panel for panel in BOARDS[0].panels() if panel.title == title)
        (series,) = [name for name in Rule("", alerts[alert], True).metrics() if name.startswith("slo:")]
        assert series in panel.queries[1].expr and panel.bad_from is None
    assert [panel.title for panel in BOARDS[0].panels() if "gray line" in panel.about] == ["TTFT p95", "TPOT p95"]
    expr = filled(next(panel for panel in BOARDS[0].panels() if panel.title == "TTFT p95").queries[1].expr)
    requests = {
        **block("a", "c1", "1x130"),
        'bakeoff_client_ttft_seconds_bucket{engine="a",le="1"}': "0+10x130",
        'bakeoff_client_ttft_seconds_bucket{engine="a",le="+Inf"}': "0+10x130",
        'bakeoff_client_ttft_seconds_count{engine="a"}': "0+10x130",
    }
    slo = {'bakeoff_client_slo_seconds{limit="ttft"}': "0.5x130", "bakeoff_client_slo_ratio": "0.9x130"}
    assert evaluate({**requests, **slo}, expr, at="2m", wanted=[("slo:ttft_seconds:threshold", 0.5)])[0]
    assert evaluate(requests, expr, at="2m", wanted=[])[0]


def test_a_cell_without_tpot_says_why(evaluate):
    def requests(cell, values):
        return client("bakeoff_client_requests_total", "a", cell, values, ',outcome="ok"')

    def without(cell, reason, values):
        return client("bakeoff_client_without_tpot_total", "a", cell, values, f',reason="{reason}"')

    series = {
        **requests("c1", "0+4x60 240x60"),
        **without("c1", "clumps", "0+3x60 180x60"),
        **without("c1", "one_event", "0x120"),
        **requests("c2", "0+4x60 240x60"),
        **without("c2", "clumps", "0x120"),
    }
    expr = filled(query_of("Requests without TPOT, and why"), minutes=9)
    good, said = evaluate(series, expr, wanted=[('{engine="a",scenario="s",cell="c1",reason="clumps"}', 0.75)])
    assert good, said
