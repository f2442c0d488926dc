"""Every series that a rule reads is one that its source serves: an engine that renames a metric is found out here.

Engines' names come of real scrapes and pushes (tests/data); our own, of the code that serves them.
"""

import gzip
import json
import re
from collections.abc import Set

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporters.engine_series import metrics as engine_metrics
from exporters.gpu_series import metrics as gpu_metrics
from exporters.ksana import Receiver
from exporters.web import Collected
from loadgen.distributed.client_metrics import ClientMetrics
from tests.loadgen.records import record
from tests.prometheus.conftest import CHECKOUT
from tests.prometheus.rule_files import Rule, all_rules

DATA = CHECKOUT / "tests" / "data"
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)[{ ]", re.MULTILINE)
RECORDED = ("engine:", "client:", "slo:")

# KsanaLLM makes an instrument when it first has something to count, and none of these came to pass while the pushes
# were captured. Their names are those of its source (ContinuousBatchingStrategy); True: a sum.
NOT_IN_PUSHES = {
    "forward_req_error_num": False,
    "forward_req_timeout_num": True,
    "recompute_request_num": True,
    "swapout_request_num": True,
}


def samples(text: str) -> set[str]:
    """The names of all samples of a scrape."""
    return set(SAMPLE.findall(text))


def pushed() -> dict[str, bool]:
    """The metrics of the captured pushes that had data; True: a sum."""
    found = {}
    with gzip.open(DATA / "ksana-c451219-otlp-pushes.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            for resource in json.loads(line)["resourceMetrics"]:
                for scope in resource.get("scopeMetrics", ()):
                    found |= {m["name"]: "sum" in m for m in scope["metrics"] if "sum" in m or "histogram" in m}
    return found


def ksana_series(name: str, is_sum: bool) -> list[str]:
    """The series that the exporter makes of a KsanaLLM metric: base units, and sums end in `_total`."""
    base = f"ksana_{re.sub('_us$', '_seconds', name)}"
    return [f"{base}_total"] if is_sum else [f"{base}_{part}" for part in ("sum", "count", "min", "max")]


def ksana_names() -> set[str]:
    both = pushed() | NOT_IN_PUSHES
    return {series for name, is_sum in both.items() for series in ksana_series(name, is_sum)}


def own_names(collector) -> set[str]:
    """The names that one of our collectors serves, those of families without a sample included."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    text = generate_latest(registry).decode()
    return samples(text) | set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def client_names() -> set[str]:
    metrics = ClientMetrics()
    metrics.observe(record(0, (1, 2), output_tokens=2), "s")
    return own_names(metrics)


SERVED = {
    "vLLM 0.24 (vllm-0.24.0-gpu)": ("vllm:", lambda: samples((DATA / "vllm-0.24.0-gpu.metrics.txt").read_text())),
    "vLLM 0.32 (vllm-0.32.0-cpu)": ("vllm:", lambda: samples((DATA / "vllm-0.32.0-cpu.metrics.txt").read_text())),
    "llama.cpp (llamacpp-b11549)": ("llamacpp:", lambda: samples((DATA / "llamacpp-b11549.metrics.txt").read_text())),
    "SGLang (sglang-0.5.23-cpu)": ("sglang:", lambda: samples((DATA / "sglang-0.5.23-cpu.metrics.txt").read_text())),
    "KsanaLLM (ksana-c451219)": ("ksana_", ksana_names),
    "the client": ("bakeoff_client_", client_names),
    "the KsanaLLM exporter": ("bakeoff_ksana_", lambda: own_names(Receiver())),
    "the GPU exporter": ("bakeoff_gpu_", lambda: own_names(Collected(lambda: gpu_metrics(0, [])))),
    "the engine exporter": ("bakeoff_engine_", lambda: own_names(Collected(lambda: engine_metrics([])))),
}


def missing(rules: list[Rule], source: str, prefix: str, served: Set[str]) -> list[str]:
    """A line for each series that a rule reads and its source does not serve."""
    return [
        f"{rule.name} reads {name}, which {source} does not serve"
        for rule in rules
        for name in sorted(rule.metrics())
        if name.startswith(prefix) and name not in served
    ]


@pytest.mark.parametrize("source", SERVED)
def test_what_rules_read_is_served(source):
    prefix, names = SERVED[source]
    assert any(name.startswith(prefix) for rule in all_rules() for name in rule.metrics()), "no rule reads it"
    assert missing(all_rules(), source, prefix, names()) == []


def test_rules_read_nothing_else():
    recorded = {rule.name for rule in all_rules() if rule.records}
    prefixes = tuple(prefix for prefix, _ in SERVED.values())
    for rule in all_rules():
        for name in rule.metrics():
            if name.startswith(RECORDED):
                assert name in recorded, f"{rule.name} reads {name}, which no rule records"
            else:
                assert name == "up" or name.startswith(prefixes), f"{rule.name} reads {name}: whose is it?"


def test_a_renamed_metric_is_named_with_its_rule():
    text = (DATA / "vllm-0.32.0-cpu.metrics.txt").read_text()
    renamed = samples(text.replace("vllm:num_requests_waiting{", "vllm:requests_waiting{"))
    assert missing(all_rules(), "vLLM 0.33", "vllm:", renamed) == [
        "engine:requests_waiting:mean reads vllm:num_requests_waiting, which vLLM 0.33 does not serve"
    ]


def test_names_are_told_from_what_is_none():
    text = 'sum by (a) (rate(x:y_total{b="c d", e!~"f"}[30s])) / on (g) (h_i offset 5m > 0.5) or 0 * up{j=""}'
    assert Rule("r", text, True).metrics() == {"x:y_total", "h_i", "up"}
