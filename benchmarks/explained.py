"""Does `bakeoff explain` find what is there, and nothing else? In virtual time, with both schedulers.

    python -m benchmarks.explained                # each experiment on engines' insides, and 20 plain runs
    python -m benchmarks.explained --plain 200

Experiments: what must be found, and what may be found beside it because it is there too. Plain runs: closed loops and
scripts of seeded lengths, loads and settings, that fit into cache, batch and step: nothing is to be found. Exit
status 1 where that is not so.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
import sys
from collections.abc import Iterator

from benchmarks.internals import engines_of
from benchmarks.simulated import command_line
from benchmarks.virtual import play
from loadgen.explain import of_engine
from loadgen.explain.block_figures import Seen
from loadgen.record import RequestRecord, int64s
from loadgen.scenario.cell import Cell
from loadgen.scenario.file import load_scenario
from loadgen.scenario.model import Scenario

Names = frozenset[str]
PREEMPTED, HELPS, WAITS = "preemption", "prefix_cache_used", "queueing"
FULL, EVICTED, BEHIND = "kv_cache_full", "prefixes_evicted", "head_of_line"
EXPECTED: dict[str, dict[str, tuple[set[str], set[str]]]] = {
    "internals-exhaustion": {"vllm": ({PREEMPTED, FULL}, {WAITS}), "ksana": ({PREEMPTED}, {WAITS})},
    "internals-held-back": {
        "vllm": ({PREEMPTED, FULL, BEHIND}, {WAITS}),
        "ksana": ({PREEMPTED, BEHIND}, {WAITS}),
    },
    "internals-chunking-lost": {
        "vllm": ({PREEMPTED, FULL}, {WAITS}),
        "ksana": ({PREEMPTED, "chunked_prefill_lost"}, {WAITS}),
    },
    "internals-cached-budget": {
        "vllm": ({HELPS}, {WAITS}),
        "ksana": ({HELPS, WAITS, "whole_prompts_in_a_step"}, set()),
    },
    "internals-same-step": {"vllm": ({HELPS}, {WAITS}), "ksana": ({HELPS, "computed_twice"}, {WAITS})},
    "internals-eviction-circle": {"vllm": ({EVICTED}, set()), "ksana": ({EVICTED, HELPS}, set())},
    "internals-eviction-drift": {"vllm": ({HELPS}, set()), "ksana": ({EVICTED}, set())},
    "internals-whole-prompt": {"vllm": ({HELPS}, set()), "ksana": ({HELPS}, set())},
    "internals-packing": {"vllm": ({WAITS}, set()), "ksana": ({WAITS}, set())},
    "internals-chunks": {"vllm": ({WAITS}, set()), "ksana": (set(), set())},
    "internals-planning": {"ahead": (set(), set()), "after": (set(), set())},
    "internals-long-answer": {"vllm": (set(), set()), "ksana": ({"detokenisation"}, set())},
    "internals-long-answers": {"vllm": (set(), set()), "ksana": ({"detokenisation"}, set())},
}
"""By experiment and engine: what must be found, and what may be."""
CLOSED = {"internals-long-answer": 1, "internals-long-answers": 16}
"""Those about front ends, and with how many users they are played."""
FRONT_END_US, AGAIN_US = 20.0, 1.5
"""What the front end that is put before the schedulers takes for an event, and KsanaLLM's for each token before it."""


def shown(scenario: Scenario, engine: str, kind: str, cell: Cell) -> Names:
    """The mechanisms that are found in one block."""
    seen = play(scenario, engine, kind, cell)
    if scenario.name in CLOSED:
        seen = through_front_end(seen, AGAIN_US if kind == "ksana" else 0.0)
    return frozenset(found.mechanism for found in of_engine(engine, kind, [(cell.id, "block", seen)]).found)


def through_front_end(seen: Seen, again_us: float) -> Seen:
    """The block as a client sees it behind one process that makes an event at a time of all tokens that wait for it.

    Args:
        seen: as the scheduler gives tokens.
        again_us: what each token of the answer so far costs again, us.
    """
    due = [(record.t_send + offset, place) for place, record in enumerate(seen.records) for offset in _all(record)]
    heapq.heapify(due)
    waiting: dict[int, int] = {}
    sent, events = [0] * len(seen.records), [[] for _ in seen.records]  # type: list[int], list[list[int]]
    free = 0
    while due or waiting:
        if not waiting:
            free = max(free, due[0][0])
        while due and due[0][0] <= free:
            _, place = heapq.heappop(due)
            waiting[place] = waiting.get(place, 0) + 1
        place = next(iter(waiting))
        sent[place] += waiting.pop(place)
        free += round(1000 * (FRONT_END_US + again_us * sent[place]))
        events[place].append(free - seen.records[place].t_send)
    return dataclasses.replace(seen, records=[_with(r, at) for r, at in zip(seen.records, events, strict=True)])


def _all(record: RequestRecord) -> Iterator[int]:
    return iter(record.event_offsets_ns)


def _with(record: RequestRecord, at: list[int]) -> RequestRecord:
    ends = {"t_first": record.t_send + at[0], "t_last": record.t_send + at[-1], "t_done": record.t_send + at[-1]}
    return dataclasses.replace(record, event_offsets_ns=int64s(at), events=len(at), **ends)


def experiment(name: str) -> Iterator[tuple[str, Names, Names, Names]]:
    """Of each engine of an experiment: its name, what was found, what must be, what may be."""
    scenario = load_scenario(name)
    cell = scenario.cells()[0]
    if name in CLOSED:
        cell = dataclasses.replace(cell, concurrency=CLOSED[name], batch=0)
    for engine, kind in engines_of(scenario).items():
        must, may = EXPECTED[name][engine]
        yield engine, shown(scenario, engine, kind, cell), frozenset(must), frozenset(may)


def plain(seed: int) -> Scenario:
    """A run in which nothing of what is known happens: every request has room, and no two prompts are alike."""
    draw = random.Random(seed)
    serving = {"max_model_length": 8192, "max_batch_size": 64, "max_tokens_per_step": 8192, "kv_block_size": 16}
    serving |= {"kv_cache_tokens": 262144, "prefix_caching": draw.random() < 0.5}
    if draw.random() < 0.5:
        serving["chunked_prefill"] = True
    asked = {"name": f"plain-{seed}", "question": "Is nothing found where nothing is?", "serving": serving}
    if draw.random() < 0.5:
        users = draw.choice([1, 2, 4, 8, 16, 32])
        # Answers of one length end together, and then all prompts come at once: they are to fit into a step.
        load = {"concurrency": [users]}
        lengths = {
            "prompt_tokens": [draw.randrange(64, min(2048, 8192 // users))],
            "output_tokens": [draw.choice([16, 128, 600])],
        }
        return Scenario.model_validate({**asked, **lengths, "load": load, "requests": draw.choice([32, 64])})
    parts = [
        {
            "at_s": round(draw.uniform(0, 1), 3),
            "every_s": round(draw.uniform(0.1, 0.4), 3),
            "requests": draw.randrange(8, 24),
            "prompt_tokens": draw.randrange(256, 1536),
            "output_tokens": draw.randrange(16, 256),
        }
        for _ in range(draw.randrange(1, 4))
    ]
    return Scenario.model_validate({**asked, "load": {"script": parts}})


def main() -> int:
    """Play them, print what was found."""
    parser = command_line(__doc__)
    parser.add_argument("--plain", type=int, default=20, metavar="N", help="how many plain runs [20]")
    given, wrong = parser.parse_args(), 0
    for name in EXPECTED:
        for engine, found, must, may in experiment(name):
            right = must <= found <= must | may
            wrong += not right
            words = "" if right else f"; WRONG: missed {sorted(must - found)}, false {sorted(found - must - may)}"
            print(f"{name:25} {engine:6} {', '.join(sorted(found)) or 'nothing'}{words}", flush=True)
    mentions = 0
    for seed in range(given.plain):
        scenario = plain(seed)
        for kind in ("vllm", "ksana"):
            if found := shown(scenario, kind, kind, scenario.cells()[0]):
                mentions += len(found)
                print(f"{scenario.name} {scenario.cells()[0].id} {kind}: FALSE {', '.join(sorted(found))}", flush=True)
    print(f"{given.plain} plain runs, each on both schedulers: {mentions} mentions")
    return int(bool(wrong or mentions))


if __name__ == "__main__":
    sys.exit(main())
