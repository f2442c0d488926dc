"""Rules and alerts, by promtool; and that none goes without a case in which it speaks and one in which it is silent."""

import re
import subprocess

import pytest

from loadgen.endpoints.seats import Seat
from stack.scrape_config import prometheus_files, write_prometheus_files
from tests.prometheus.conftest import CHECKOUT
from tests.prometheus.rule_files import FOLDER, Rule, all_rules, load, rule_tests


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_promtool_accepts_the_whole_configuration(promtool, tmp_path):
    seats = [Seat(name="vllm", kind="vllm", base_url="http://v:4")]
    files = prometheus_files(CHECKOUT, seats, client="c:1", engine_exporter="e:2", prometheus="p:3")
    write_prometheus_files(tmp_path, files)
    result = run(promtool, "check", "config", tmp_path / "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    counts = [int(count) for count in re.findall(r"SUCCESS: (\d+) rules found", result.stdout)]
    assert sum(counts) == len(all_rules()) > 0


@pytest.mark.parametrize("path", rule_tests(), ids=lambda path: path.stem)
def test_promtool_runs_the_rules(promtool, path):
    result = run(promtool, "test", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_finds_a_rule_that_is_wrong(promtool, tmp_path):
    for name in ("rules.yml", "alerts.yml"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8").replace("> 0.95", "> 0.99"))
    (tmp_path / "tests").mkdir()
    test = tmp_path / "tests" / "alerts.yml"
    test.write_text((FOLDER / "tests" / "alerts.yml").read_text(encoding="utf-8"))
    result = run(promtool, "test", "rules", test)
    assert result.returncode != 0
    assert "KvCacheFull" in result.stdout + result.stderr


def cases(rule: Rule) -> list[bool]:
    """Of each of a rule's test cases whether something is expected of it."""
    found = []
    for path in rule_tests():
        for group in load(path)["tests"]:
            for case in group.get("promql_expr_test", ()):
                if rule.records and re.search(rf"(?<![\w:]){rule.name}(?![\w:])", case["expr"]):
                    found.append(bool(case["exp_samples"]))
            for case in group.get("alert_rule_test", ()):
                if not rule.records and case["alertname"] == rule.name:
                    found.append(bool(case["exp_alerts"]))
    return found


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_each_rule_has_a_case_in_which_it_speaks_and_one_in_which_it_is_silent(rule):
    assert True in cases(rule), f"no test in prometheus/tests/ expects anything of {rule.name}"
    if not rule.name.startswith("slo:"):  # a constant
        assert False in cases(rule), f"no test in prometheus/tests/ expects {rule.name} to be silent"


def test_every_rule_and_all_that_it_reads_is_documented():
    text = (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8")
    # A histogram is documented by its name.
    series = r"_(sum|count|bucket)$"
    wanted = {rule.name for rule in all_rules()}
    wanted |= {re.sub(series, "", name) for rule in all_rules() for name in rule.metrics() if name != "up"}
    assert sorted(name for name in wanted if f"`{name}" not in text) == []
