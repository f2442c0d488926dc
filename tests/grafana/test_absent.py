"""Which panels have no data on a machine with CPU engines, panel by panel: here as a list, in code as marks."""

from loadgen.boards.catalogue import BOARDS, reasons
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
NEEDS_TROUBLE = {"bakeoff": {"Alerts that fire"}}
LLAMACPP_IS_SILENT = {
    ("bakeoff", "KV cache in use"),
    ("bakeoff-engines", "KV cache in use"),
    ("bakeoff-engines", "Time in the queue"),
    ("bakeoff-engines", "Preempted and computed again"),
    ("bakeoff-engines", "TTFT, as the engine counts it"),
    ("bakeoff-engines", "TTFT outside the engine (residual)"),
    ("bakeoff-engines", "Requests that succeeded"),
    ("bakeoff-engines", "Requests that failed"),
}


def places(by_board):
    return {(uid, title) for uid, titles in by_board.items() for title in titles}


def test_the_list():
    assert BOARDS[2].uid == "bakeoff-gpu"
    groups = {
        reasons.GPU: NEEDS_GPU,
        reasons.NVLINK: NEEDS_NVLINK,
        reasons.KSANA: NEEDS_KSANA,
        reasons.OPEN_LOOP: NEEDS_OPEN_LOOP,
        reasons.GOES_WELL: NEEDS_TROUBLE,
    }
    assert {place: reason for reason, group in groups.items() for place in places(group)} == {
        (board.uid, panel.title): panel.never_on_cpu
        for board in BOARDS
        for panel in board.panels()
        if panel.never_on_cpu
    }
    told = {(board.uid, panel.title): panel.not_told for board in BOARDS for panel in board.panels()}
    assert {place for place, kinds in told.items() if "llamacpp" in kinds} == LLAMACPP_IS_SILENT
    assert {kind for kinds in told.values() for kind in kinds} <= set(KINDS)
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
            assert only_gpu == (panel.never_on_cpu in (reasons.GPU, reasons.NVLINK)), panel.title


def test_what_llama_cpp_tells_nothing_of_is_on_the_list_and_nothing_else_is():
    """By the rules: a recorded figure of engines that is made of no series of llama.cpp or of our own."""
    for board in BOARDS:
        for panel in board.panels():
            if panel.never_on_cpu:
                continue
            parts = [
                name for q in panel.queries for metric in Rule("", q.expr, True).metrics() for name in sources(metric)
            ]
            engines_own = [name for name in parts if name.startswith(("vllm:", "ksana_"))]
            silent = bool(engines_own) and not any(name.startswith("llamacpp:") for name in parts)
            assert silent == ("llamacpp" in panel.not_told), panel.title
