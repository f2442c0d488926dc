"""Shapes of traffic: bursts, conversations, traces and shared prefixes, against oracles of their own."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.errors import UserError
from loadgen.scenario.cell import Cell
from loadgen.scenario.file import load_scenario
from loadgen.scenario.shapes import Conversation, Prefixes, Step
from loadgen.scenario.trace import MAX_ARRIVALS, Trace, keep_trace, read_trace, write_trace
from loadgen.traffic.arrivals import arrival_offsets_ns, share_of_worker
from loadgen.traffic.plan import BlockPlan
from tests.loadgen.traffic.test_plan import plan

number = st.integers(1, 999_999).map(lambda n: n / 1000)
steps = st.builds(Step, at_s=number, for_s=number, factor=number)
conversations = st.builds(
    Conversation,
    turns=st.integers(2, 1000),
    message_tokens=st.integers(1, 10**6),
    think_s=st.just(0.0) | number,
    think=st.sampled_from(["exponential", "fixed"]),
)
prefixes = st.builds(
    lambda drift, **keys: Prefixes(**keys, order="drift" if drift else "circle", apart=drift),
    drift=st.none() | st.integers(1, 100_000),
    count=st.integers(1, 1000),
    tokens=st.integers(1, 10**7),
    visits=st.integers(1, 1000),
    fill=st.integers(0, 100_000),
) | st.builds(Prefixes, count=st.integers(1, 1000), tokens=st.integers(1, 10**7), order=st.just("row"))
lengths = st.integers(1, 10**8)
loads = st.tuples(st.integers(1, 10**6), st.just(0.0)) | st.tuples(st.just(0), st.floats(1e-6, 1e5))
cells = st.builds(
    lambda prompt, output, load, percent, step, chat, again, trace: Cell(
        prompt, output, *load, shared_percent=percent, step=step, conversation=chat, prefixes=again, trace=trace
    ),
    *(lengths, lengths, loads, st.integers(0, 99), st.none() | steps, st.none() | conversations, st.none() | prefixes),
    st.just("") | st.text("0123456789abcdef", min_size=8, max_size=8),
)


@settings(deadline=None)
@given(cells)
def test_the_id_of_any_cell_reads_back(cell):
    assert Cell.parse(cell.id) == cell
    assert hash(Cell.parse(cell.id)) == hash(cell)
    assert cell.shape.load == 0
    assert len(cell.id) < 200


@settings(deadline=None)
@given(cells)
def test_a_plan_carries_its_cell(cell):
    assert BlockPlan.from_json(plan(cell=cell).model_dump_json()).cell == cell


@pytest.mark.parametrize(
    "text",
    [
        *("p0512-o0128-c004-s0", "p0512-o0128-c004-s100", "p0512-o0128-c004-s05", "p0512-o0128-c004-s50-s50"),
        *("p0512-o0128-r4-b20f10x3-s50", "p0512-o0128-r4-b20.0f10x3", "p0512-o0128-r4-b20f0x3", "p0512-o0128-r1.2.3"),
        *("p0512-o0128-c004-k1m2w0e", "p0512-o0128-c004-k2m2w0x", "p0512-o0128-c004-tabc", "p0512-o0128-c004x-s50"),
        *("p0512-o0128-c004-x3p64v0c", "p0512-o0128-c004-x3p64v2d4f0", "p0512-o0128-c004-x3p64v2"),
    ],
)
def test_what_is_no_cell_id(text):
    with pytest.raises(ValueError, match="is not a cell id"):
        Cell.parse(text)


# Bursts


def expected_count(step: Step, rate: float, until_s: float) -> float:
    """The integral of the rate from 0, summed over its three pieces."""
    ends = [step.at_s, step.at_s + step.for_s]
    before = min(until_s, ends[0])
    inside = max(0.0, min(until_s, ends[1]) - ends[0])
    behind = max(0.0, until_s - ends[1])
    return rate * (before + step.factor * inside + behind)


BURST = Step(at_s=20.0, for_s=10.0, factor=3.0)


@pytest.mark.parametrize("step", [BURST, Step(at_s=0, for_s=15, factor=0.25), Step(at_s=3, for_s=2, factor=20)])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_burst_is_the_poisson_process_of_its_rate(step, workers):
    """By the time change: the integrated rate up to each arrival is a Poisson process of rate 1."""
    rate, count = 150.0, 9000
    dealt = [
        itertools.islice(share_of_worker(arrival_offsets_ns("poisson", rate, "s", (), step), i, workers), count)
        for i in range(workers)
    ]
    arrivals = [offset / 1e9 for _, offset in sorted(itertools.chain(*dealt))[:count]]
    ticks = [expected_count(step, rate, at) for at in arrivals]
    gaps = sorted(b - a for a, b in itertools.pairwise([0.0, *ticks]))
    cdf = [1 - math.exp(-gap) for gap in gaps]
    worst = max(max(abs(p - k / count), abs(p - (k + 1) / count)) for k, p in enumerate(cdf))
    assert worst < 1.95 / math.sqrt(count)
    # The same test refuses arrivals that know nothing of the step.
    steady = [at / 1e9 for at in itertools.islice(arrival_offsets_ns("poisson", rate, "s"), count)]
    blind = sorted(b - a for a, b in itertools.pairwise([0.0, *(expected_count(step, rate, at) for at in steady)]))
    assert max(abs(1 - math.exp(-gap) - k / count) for k, gap in enumerate(blind)) > 1.95 / math.sqrt(count)


def test_a_burst_has_so_many_arrivals_more():
    arrivals = [at / 1e9 for at in itertools.islice(arrival_offsets_ns("poisson", 100.0, "x", (), BURST), 7000)]
    inside = sum(20 <= at < 30 for at in arrivals)
    assert abs(inside - 3000) < 4 * math.sqrt(3000)
    assert abs(sum(at < 20 for at in arrivals) - 2000) < 4 * math.sqrt(2000)
    assert BURST.arrivals_until_end(100.0) == expected_count(BURST, 100.0, 30) == 5000


def test_a_constant_load_has_its_step_too():
    arrivals = [at / 1e9 for at in itertools.islice(arrival_offsets_ns("constant", 10.0, "", (), BURST), 600)]
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert gaps[:200] == pytest.approx([0.1] * 200)
    assert gaps[201:499] == pytest.approx([0.1 / 3] * 298)
    assert gaps[500:] == pytest.approx([0.1] * 99)


@given(steps, st.floats(0, 1e5), st.floats(0, 1e5))
def test_real_time_only_goes_forward(step, a, b):
    low, high = sorted((a, b))
    assert step.real_time(low) <= step.real_time(high) + 1e-9


# Prompts of several lengths

RECIPE = PromptRecipe("text", 5, tuple(f"w{i}" for i in range(40)), (), "test")
IDS = PromptRecipe("ids", 1, tuple(str(i) for i in range(100, 140)), (1,), "test")


def length(prompt: str, recipe: PromptRecipe) -> int:
    text = json.loads(prompt)
    return len(text) if recipe.mode == "ids" else len(text.split()) + recipe.overhead


@pytest.mark.parametrize("recipe", [RECIPE, IDS])
@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(16, 300), st.integers(16, 300), st.integers(0, 8))
def test_a_shorter_prompt_is_the_beginning_of_a_longer_one(recipe, which, a, b, shared):
    short, long = sorted((a, b))
    factory = PromptFactory(recipe, prompt_tokens=300, shortest=16, seed="1", shared_prefix_tokens=shared)
    first, second = factory.prompt(which, short), factory.prompt(which, long)
    assert (length(first, recipe), length(second, recipe)) == (short, long)
    assert second.startswith(first[:-1])
    assert factory.prompt(which) == factory.prompt(which, 300)


def test_the_shortest_of_several_prompts_must_be_possible():
    with pytest.raises(UserError, match="A prompt of 5 tokens cannot be made"):
        PromptFactory(RECIPE, prompt_tokens=300, shortest=5, seed="1")


# Conversations


def test_a_conversation_grows_by_an_answer_and_a_message():
    chat = Conversation(turns=4, message_tokens=20)
    assert [chat.prompt_tokens(100, 30, turn) for turn in range(4)] == [100, 150, 200, 250]
    cell = Cell(100, 30, 2, conversation=chat)
    assert cell.longest == 280
    assert plan(cell=cell).prompt_span == (100, 250)


# Traces


def lines(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_a_trace_with_lengths(tmp_path):
    file = lines(
        tmp_path / "t.jsonl",
        {"t": 1, "prompt_tokens": 10, "output_tokens": 4},
        {"t": 1.5, "prompt_tokens": 30, "output_tokens": 1, "user": "x"},
        {"t": 3, "prompt_tokens": 21, "output_tokens": 2},
    )
    trace = read_trace(file)
    assert trace == Trace((1_000_000_000, 1_500_000_000, 3_000_000_000), (10, 30, 21), (4, 1, 2))
    facts = trace.facts("t.jsonl")
    assert (facts.requests, facts.rate, facts.longest) == (3, 1.0, 31)
    assert (facts.prompt_tokens, facts.output_tokens) == (20, 2)
    assert trace.measured(None, 1) == trace.measured(99, 1) == 2
    assert trace.measured(1, 1) == 1
    with pytest.raises(UserError, match="3 arrivals, and 3 are for warm-up"):
        trace.measured(None, 3)


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_a_trace_is_read_as_it_was_written(tmp_path_factory, data, with_lengths):
    arrivals = sorted(data.draw(st.lists(st.integers(1, 10**14), min_size=2, max_size=30)))
    sizes = data.draw(st.lists(st.integers(1, 10**6), min_size=len(arrivals), max_size=len(arrivals)))
    trace = Trace(tuple(arrivals), *((tuple(sizes), tuple(reversed(sizes))) if with_lengths else ()))
    file = tmp_path_factory.getbasetemp() / "written.jsonl"
    write_trace(trace, file)
    assert read_trace(file) == trace
    assert read_trace(file).digest == trace.digest
    assert Cell.parse(Cell(1, 1, 0, trace.rate, trace=trace.digest).id).trace == trace.digest


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"t": 2}, "all lines give"),
        ({"t": 2, "prompt_tokens": 3}, "must both be whole numbers"),
        ({"t": 2, "prompt_tokens": 3, "output_tokens": 0}, "must both be whole numbers"),
        ({"t": 2, "prompt_tokens": 3.0, "output_tokens": 1}, "must both be whole numbers"),
        ({"t": 2, "prompt_tokens": True, "output_tokens": 1}, "must both be whole numbers"),
        ({"t": 2, "prompt_tokens": 10**9, "output_tokens": 1}, "must both be whole numbers"),
        ({"t": 10**400}, "expected an object"),
    ],
)
def test_a_wrong_line_of_a_trace_is_named(tmp_path, second, said):
    file = lines(tmp_path / "t.jsonl", {"t": 1, "prompt_tokens": 10, "output_tokens": 4}, second)
    with pytest.raises(UserError, match=said) as caught:
        read_trace(file)
    assert str(caught.value).startswith(f"{file}:2: ")


def test_a_trace_that_is_too_long(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"t": 1}\n' * (MAX_ARRIVALS + 1))
    with pytest.raises(UserError, match=f":{MAX_ARRIVALS + 1}: a trace may have {MAX_ARRIVALS} arrivals"):
        read_trace(file)


def test_a_trace_that_changed_since_is_not_raced(tmp_path):
    file = lines(tmp_path / "t.jsonl", {"t": 1}, {"t": 2})
    facts = read_trace(file).facts(str(file))
    keep_trace(facts, tmp_path)
    assert read_trace(tmp_path / "trace.jsonl").digest == facts.digest
    lines(file, {"t": 1}, {"t": 3})
    with pytest.raises(UserError, match="has changed"):
        keep_trace(facts, tmp_path)


def test_random_is_not_used_up_by_a_step():
    """With and without a step the schedule comes of the same draws: before the step they are the same arrivals."""
    seed = str(random.Random(3).random())
    with_step = list(itertools.islice(arrival_offsets_ns("poisson", 5.0, seed, (), BURST), 60))
    without = list(itertools.islice(arrival_offsets_ns("poisson", 5.0, seed), 60))
    assert with_step == without


@pytest.mark.parametrize("form", ["bom", "gzip", "blank lines", "gzip of bom, with CRLF"])
def test_a_trace_file_as_other_tools_leave_it(tmp_path, form):
    text = '{"t": 0}\n{"t": 0.5}\n'
    raw = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "gzip": gzip.compress(text.encode()),
        "blank lines": ("\n  \n" + text + "\t\r\n\n").encode(),
        "gzip of bom, with CRLF": gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
    }[form]
    file = tmp_path / "t.jsonl"
    file.write_bytes(raw)
    assert read_trace(file).arrivals_ns == (0, 500_000_000)


@pytest.mark.parametrize(
    "raw", [gzip.compress(b'{"t": 0}\n{"t": 1}\n', mtime=0)[:-9], b"\x1f\x8b broken", "{}\n".encode("utf-16")]
)
def test_a_trace_file_that_is_broken_is_told_in_a_line(tmp_path, raw):
    file = tmp_path / "t.jsonl"
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r'Give a trace of \{"t": seconds\} lines') as caught:
        read_trace(file)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("times", "note", "rebased"),
    [
        ((0, 0, 0, 0), "all its 4 arrivals are at one moment", (0, 0, 0, 0)),
        ((6, 6.1, 6.3), "nothing is sent for 6 s", (0, 0.1, 0.3)),
        ((86_400, 86_400), "nothing is sent for 86400 s", (0, 0)),
        ((0.4, 3), "", (0, 2.6)),
        ((5, 500), "", (0, 495)),
    ],
)
def test_what_is_odd_about_a_trace_is_told(tmp_path, times, note, rebased):
    file = lines(tmp_path / "t.jsonl", *({"t": at} for at in times))
    assert note in read_trace(file).note and bool(note) == bool(read_trace(file).note)
    assert 0 < read_trace(file).rate <= 100_000
    again = read_trace(file, rebase=True)
    assert again.arrivals_ns == tuple(round(at * 1e9) for at in rebased)
    assert "nothing is sent" not in again.note


def test_a_scenario_may_rebase_its_trace(tmp_path):
    lines(tmp_path / "t.jsonl", {"t": 7, **LENGTHS}, {"t": 8, **LENGTHS}, {"t": 9, **LENGTHS})
    file = tmp_path / "s.yaml"
    text = "name: s\nquestion: q\nwarmup_requests: 1\nload:\n  trace: {file: t.jsonl, rebase: %s}\n"
    file.write_text(text % "true")
    facts = load_scenario(str(file)).load.trace
    assert facts is not None and facts.rebase
    assert keep_trace(facts, tmp_path).arrivals_ns[0] == 0
    file.write_text(text.replace("rebase", "rebsae") % "true")
    with pytest.raises(UserError, match=r"s.yaml:5: `load.trace`: give a file's name, or \{file: NAME, rebase: true\}"):
        load_scenario(str(file))


LENGTHS = {"prompt_tokens": 9, "output_tokens": 3}
