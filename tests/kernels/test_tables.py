"""Tables, the page's markers, and the files that the tools write."""

import json

import pytest

from kernels import measured, page, tables
from kernels.cards import card_of
from kernels.measured import Measured, Spread
from kernels.words import CHINESE, ENGLISH, LANGUAGES
from tests.kernels.made_up import MEASURED, TIMINGS


def rows(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def row(markdown, name):
    return next(cells for cells in rows(markdown) if cells[0] == name)


def test_the_ladder_tells_speeds_and_shares_of_the_libraries():
    made = tables.ladder(MEASURED, ENGLISH)
    # 540 of 300, and of the better of 500 and 600; causal all are half, and shares the same
    assert row(made, "5 hopper") == ["5 hopper", "540", "180.0%", "90.0%", "270", "180.0%", "90.0%"]
    assert row(made, "0 textbook")[1:4] == ["8.0", "2.7%", "1.3%"]
    assert row(made, "FlashAttention-3")[1:4] == ["600", "200.0%", "100.0%"]


def test_other_cards_have_a_ladder_of_their_own():
    made = tables.other_cards(MEASURED, ENGLISH)
    assert made.startswith("NVIDIA H100, driver 570.2, torch 2.11.0\n")
    assert row(made, "5 hopper")[1:4] == ["540", "180.0%", "90.0%"]


def test_goals_are_judged_by_the_median_and_show_the_runs():
    made = rows(tables.goals(MEASURED, ENGLISH))
    assert made[1] == ["3 swizzle", "not causal", "60% of FlashAttention-2", "80.0%", "80.0% … 80.0% (3)", "yes"]
    of_better = next(cells for cells in made if cells[2].startswith("85% of the better"))
    assert of_better == [
        "5 hopper",
        "not causal",
        "85% of the better of cuDNN and FlashAttention-3",
        "90.0%",
        "89.0% … 91.0% (3)",
        "yes",
    ]


def test_a_goal_that_was_missed_and_one_that_was_not_measured():
    slow = tuple(t for t in TIMINGS if t.kernel in ("flash", "tensor-cores"))
    bench = measured.Bench("x", "1", {}, None, slow)
    assert all(cells[3:] == ["–", "–", "–"] for cells in rows(tables.goals(Measured(bench), ENGLISH))[1:])
    mine = [measured.Timing(1, "swizzle", "float16", 128, False, 4096, 4, 16, 1.0, 150.0)]
    theirs = [measured.Timing(1, "flash", "float16", 128, False, 4096, 4, 16, 1.0, 300.0)]
    bench = measured.Bench("x", "1", {}, None, tuple(mine + theirs))
    assert rows(tables.goals(Measured(bench), ENGLISH))[1][3:] == ["50.0%", "50.0% … 50.0% (1)", "no"]


def test_speeds_by_length():
    made = tables.speeds(MEASURED, ENGLISH)
    assert rows(made)[0] == ["not causal", "512", "4,096", "16,384"]
    assert row(made, "2 tensor-cores") == ["2 tensor-cores", "90", "90", "90"]
    assert "bfloat16, head dim 128" in tables.all_speeds(MEASURED, ENGLISH)


def test_correctness_takes_the_worst():
    assert row(tables.correctness(MEASURED, ENGLISH), "5 hopper") == [
        *("5 hopper", "float16", "16", "0", "1.0e-03", "1.6e-04", "3.0e-05")
    ]
    assert row(tables.tried(MEASURED, ENGLISH), "gqa") == ["gqa", "259", "2", "4.0e-05", "4.0e-05"]


def test_conflicts_worked_out_and_counted():
    made = tables.conflicts(MEASURED, ENGLISH)
    assert row(made, "2 tensor-cores") == ["2 tensor-cores", "8", "1", "2,345,678", "1,234,567", "5", "0"]
    assert row(made, "3 swizzle") == ["3 swizzle", "1", "1", "2,345,678", "0", "5", "0"]
    assert row(tables.conflicts(Measured(), ENGLISH), "2 tensor-cores")[1:] == ["8", "1", "–", "–", "–", "–"]


def test_traffic_is_of_one_sequence():
    made = row(tables.traffic(MEASURED, ENGLISH), "4,096")
    # Q, K, V, O: 4 x 16 x 4096 x 128 x 2 bytes = 64 MiB; S and P: 16 bytes x 16 x 4096^2 = 4096 MiB; batch 4
    assert made[1:4] == ["4,160 MiB", "64 MiB", f"{4096 * 1000 // 4:,} MiB"]
    assert "not measured yet" in tables.traffic(Measured(), ENGLISH)


def test_counters_name_the_longest_waits():
    made = row(tables.counters(MEASURED, ENGLISH), "5 hopper")
    # 1000 MiB in 1 ms of 4.8 TB/s
    assert made[1:7] == ["**60.0%**", "–", "–", "45.0%", "21.8%", "12.5%"]
    assert made[7:] == ["168", "`barrier` 3.0, `long_scoreboard` 2.0"]
    assert tables.counters(MEASURED, ENGLISH, causal=True) == "*Not measured yet.*"


@pytest.mark.parametrize("name", [name for name in tables.TABLES if name not in ("conflicts", "traffic")])
def test_without_measurements_a_table_says_so(name):
    assert tables.TABLES[name](Measured(), ENGLISH) == "*Not measured yet.*"
    assert tables.TABLES[name](Measured(), CHINESE) == "*尚未测量。*"


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_row_of_a_table_is_as_long_as_its_head(name):
    for block in tables.TABLES[name](MEASURED, CHINESE).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_filling_a_page_keeps_all_else_and_is_done_once():
    text = "# A\n\n<!-- table: setup -->\nold\n<!-- end -->\n\nmiddle\n\n<!-- table: goals -->\n<!-- end -->\nend\n"
    once = tables.fill(text, MEASURED, ENGLISH)
    assert "old" not in once
    assert "| card | NVIDIA H200 |" in once
    assert "| processors' clock at most | 1980 MHz |" in once
    assert once.startswith("# A\n\n<!-- table: setup -->\n")
    assert "\n\nmiddle\n\n" in once
    assert tables.fill(once, MEASURED, ENGLISH) == once
    assert "Not measured yet" in tables.fill(once, Measured(), ENGLISH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- table: nothing -->\n<!-- end -->", "no table called 'nothing'; there are setup"),
        ("<!-- table: setup -->\n", "1 tables begin and 0 end"),
        ("<!-- table: setup -->\n<!-- table: goals -->\n<!-- end -->", "2 tables begin and 1 end"),
    ],
)
def test_a_marker_that_is_not_understood(text, words):
    with pytest.raises(ValueError, match=f"README.md: {words}"):
        tables.fill(text, Measured(), ENGLISH)


def test_the_pages_are_what_the_measurements_say():
    found = measured.read()
    for path, content in page.texts(found).items():
        assert (page.FOLDER / path).read_text(encoding="utf-8") == content, f"{path} is old: make attention-page"


def test_the_pages_show_the_same_tables_and_figures():
    english, chinese = ((page.FOLDER / language.page).read_text(encoding="utf-8") for language in LANGUAGES)
    marks = [[line for line in text.splitlines() if "<!-- table" in line] for text in (english, chinese)]
    assert marks[0] == marks[1]
    assert sorted(line[12:-4] for line in marks[0] if line.startswith("<!-- table: ")) == sorted(
        line[12:-4] for line in set(marks[0])
    )
    for name in [*page.drawings(), *page.plots(Measured())]:
        text = english if name.parts[1] == "en" else chinese
        assert str(name) in text


def test_a_folder_without_measurements(tmp_path):
    assert measured.read(tmp_path) == Measured()


def bench_file(**change):
    line = {"kernel": "hopper", "dtype": "float16", "dim": 128, "causal": True, "seqlen": 512, "batch": 32}
    line |= {"heads": 16, "ms_median": 0.1, "tflops": 400.0, "sm_clock_mhz": 1900.0, "power_w": 600.0}
    return {
        "card": "NVIDIA H200",
        "driver": "1",
        "versions": {},
        "clocks": {},
        "runs": [{"run": 1, "rows": [line]}],
    } | change


def test_reading_what_the_tools_write(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(bench_file()))
    case = {"kernel": "hopper", "dtype": "float16", "dim": 64, "batch": 1, "seqlen": 1, "heads": 2}
    case |= {"kv_heads": 2, "kind": "one row", "max_abs": 0.1, "rel_l2": 0.2, "library_rel_l2": None, "ok": False}
    (tmp_path / "correctness.json").write_text(json.dumps({"cases": [case]}))
    counted = {"kernel": "swizzle", "seqlen": 4096, "causal": False, "launches": 1}
    counted["metrics"] = {"dram_read_bytes": 5.0, "dram_write_bytes": 2, "stalls": {"wait": 1.0}}
    (tmp_path / "profile.json").write_text(json.dumps({"rows": [counted]}))
    (tmp_path / "bench-h100.json").write_text(json.dumps(bench_file(card="NVIDIA H100")))
    found = measured.read(tmp_path)
    assert [bench.card for bench in found.others] == ["NVIDIA H100"]
    assert found.bench.speed("hopper", 512, True) == Spread(400.0, 400.0, 400.0, 1)
    assert found.bench.speed("hopper", 512, False) is None
    assert not found.cases[0].ok
    assert found.cases[0].causal is False  # the tool leaves it out
    assert found.moved("swizzle", 4096) == 7.0
    assert found.moved("swizzle", 512) is None
    assert found.counted("swizzle", 4096).count("registers") is None
    assert found.counted("swizzle", 4096).count("stalls") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "bench.json: "),
        ("[]", "it holds no JSON object"),
        ("{}", "'runs' must be a list, not NoneType"),
        (json.dumps({"runs": [{}]}), "an entry of runs lacks 'run'"),
        (json.dumps({"runs": [{"run": 1, "rows": [{"kernel": "hopper"}]}]}), "row 1 of rows lacks dtype, dim, causal"),
        (json.dumps({"runs": [{"run": 1, "rows": [7]}]}), "row 1 of rows lacks kernel"),
    ],
)
def test_a_file_of_another_form(tmp_path, content, words):
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(ValueError, match=f"{words}.*`make attention`"):
        measured.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("NVIDIA H200", (989.4, 4.8)),
        ("NVIDIA H100 80GB HBM3", (989.4, 3.35)),
        ("NVIDIA H100 PCIe", (756.0, 2.0)),
    ],
)
def test_limits_of_a_card(name, limits):
    card = card_of(name)
    assert (card.tflops, card.tbytes_a_s) == limits
    assert card_of("NVIDIA A100") is None
