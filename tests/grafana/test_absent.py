"""Which panels have no data on a machine with CPU engines, and which have none of one kind of engine."""

from loadgen.boards.catalogue import BOARDS
from loadgen.engines import ENGINES as KINDS
from stack.setup import ENGINES
from tests.prometheus.rule_files import Rule, all_rules

NEEDS_GPU = {
    "bakeoff": {"GPU memory", "Output tokens per joule"},
    "bakeoff-gpu": {panel.title for panel in BOARDS[2].panels()} - {"NVLink traffic"},
}
NEEDS_NVLINK = {"bakeoff-gpu": {"NVLink traffic"}}
NEEDS_KSANA = {"bakeoff-engines": {"Swapped out", "Age of the newest push"}}
NEEDS_OPEN_LOOP = {"bakeoff-client": {"Schedule lag"}}
NEEDS_TROUBLE = {"bakeoff": {"Alerts that fire", "Requests without TPOT, and why"}}
SILENT = {
    "llamacpp": {
        ("bakeoff", "KV cache in use"),
        ("bakeoff-engines", "KV cache in use"),
        ("bakeoff-engines", "Time in the queue"),
        ("bakeoff-engines", "Preempted and computed again"),
        ("bakeoff-engines", "TTFT, as the engine counts it"),
        ("bakeoff-engines", "TTFT outside the engine (residual)"),
        ("bakeoff-engines", "Requests that succeeded"),
        ("bakeoff-engines", "Requests that failed"),
    },
    # It tells nothing of its KV cache, and begins these counters with the first hit, such request, failure.
    "ksana": {
        ("bakeoff", "KV cache in use"),
        ("bakeoff-engines", "KV cache in use"),
        ("bakeoff-engines", "Preempted and computed again"),
        ("bakeoff-engines", "Requests that failed"),
    },
}
"""Panels that one kind of engine tells nothing of."""


def places(by_board):
    return {(uid, title) for uid, titles in by_board.items() for title in titles}


NEVER_ON_CPU = places(NEEDS_GPU) | places(NEEDS_NVLINK) | places(NEEDS_KSANA) | places(NEEDS_OPEN_LOOP)
NEVER_ON_CPU |= places(NEEDS_TROUBLE)


def test_the_list_is_of_panels_that_there_are():
    assert BOARDS[2].uid == "bakeoff-gpu"
    there = {(board.uid, panel.title) for board in BOARDS for panel in board.panels()}
    assert NEVER_ON_CPU.union(*SILENT.values()) <= there
    assert set(SILENT) <= set(KINDS)
    assert set(ENGINES) == {"llamacpp", "vllm"}, "the list is of these CPU engines"


RULES = all_rules()


def sources(metric):
    """The names that a series is made of, as far down as rules go."""
    rules = [rule for rule in RULES if rule.records and rule.name == metric]
    return {metric}.union(*(sources(name) for rule in rules for name in rule.metrics()))


def test_what_reads_the_gpu_exporter_alone_is_on_the_list_and_nothing_else_is():
    for board in BOARDS:
        for panel in board.panels():
            only_gpu = all(
                any(
                    name.startswith("bakeoff_gpu_")
                    for metric in Rule("", q.expr, True).metrics()
                    for name in sources(metric)
                )
                for q in panel.queries
            )
            assert only_gpu == ((board.uid, panel.title) in places(NEEDS_GPU) | places(NEEDS_NVLINK)), panel.title


def test_what_llama_cpp_tells_nothing_of_is_on_the_list_and_nothing_else_is():
    """By the rules: a recorded figure of engines that is made of no series of llama.cpp or of our own."""
    for board in BOARDS:
        for panel in board.panels():
            if (board.uid, panel.title) in NEVER_ON_CPU:
                continue
            parts = [
                name for q in panel.queries for metric in Rule("", q.expr, True).metrics() for name in sources(metric)
            ]
            engines_own = [name for name in parts if name.startswith(("vllm:", "ksana_"))]
            silent = bool(engines_own) and not any(name.startswith("llamacpp:") for name in parts)
            assert silent == ((board.uid, panel.title) in SILENT["llamacpp"]), panel.title
