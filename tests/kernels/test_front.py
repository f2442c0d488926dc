"""What of the front and the profiler needs no card: names, the arguments' layout, and reading ncu's output."""

import ctypes
import re

import pytest

from kernels import build, profile
from kernels.steps import CUDA_FOLDER, NAMES, STEPS, step


def test_the_arguments_are_those_of_the_header():
    """Python's structure mirrors the C++ one field by field: names, order and types."""
    text = (CUDA_FOLDER / "common.cuh").read_text(encoding="utf-8")
    body = re.search(r"struct AttentionArgs \{(.*?)\n\};", text, re.DOTALL)[1]
    kinds = {"int": ctypes.c_int, "float": ctypes.c_float}
    fields = []
    for declaration in re.sub(r"//.*", "", body).split(";"):
        found = re.match(r"\s*(?:const )?(void|int|float|unsigned|size_t|char)\b(.*)", declaration, re.DOTALL)
        for name in found[2].split(",") if found else ():
            pointer, name = "*" in name, name.strip(" *\n")
            fields.append((name, ctypes.c_void_p if pointer else kinds[found[1]]))
    assert list(build.Arguments._fields_) == fields


def test_each_source_exports_what_the_front_calls():
    for entry in STEPS:
        assert f"int attention_step{entry.number}(const AttentionArgs *" in entry.path.read_text(encoding="utf-8")


def test_steps_by_name():
    assert [step(name).number for name in NAMES] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="no kernel called 'flash'; there are textbook, online-softmax"):
        step("flash")


def launch(number, kernel, **counters):
    return [f'"{number}","{kernel}","{name}","{value}"' for name, value in counters.items()]


def test_ncus_lines_become_rows():
    """Launches of one call add up bytes and take the longest launch's shares; kernels of others are left out."""
    time, read, written = "gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum"
    busy = "sm__warps_active.avg.pct_of_peak_sustained_active"
    lines = ["==PROF== noise", '"ID","Kernel Name","Metric Name","Metric Value"']
    lines += launch(0, "void textbook_scores<half>", **{time: "1,000,000", read: "100", written: "200", busy: "50"})
    lines += launch(1, "void textbook_softmax()", **{time: "500", read: "7", written: "0", busy: "10"})
    lines += launch(2, "void someone_elses()", **{time: "9", read: "9", written: "9"})
    lines += launch(10, "void swizzle<half>", **{time: "20", read: "n/a", written: "3"})
    order = [("textbook", 512, False), ("swizzle", 512, False), ("hopper", 512, False)]
    rows = profile.assign(order, profile.read("\n".join(lines)))
    assert [(row["kernel"], row["seqlen"], row["launches"]) for row in rows] == [
        ("textbook", 512, 2),
        ("swizzle", 512, 1),
    ]
    metrics = rows[0]["metrics"]
    assert metrics["ms"] == pytest.approx(1.0005, abs=1e-4)
    assert (metrics["dram_read_bytes"], metrics["dram_write_bytes"], metrics["occupancy_pct"]) == (107, 200, 50)
    assert "dram_read_bytes" not in rows[1]["metrics"]


def test_the_page_reads_counters_that_the_profiler_writes():
    from kernels import tables

    written = {name for name, _ in profile.COUNTERS.values()}
    assert {
        *tables.BUSY,
        *tables.SHARED,
        "registers",
        "ms",
        "occupancy_pct",
        "dram_read_bytes",
        "dram_write_bytes",
    } <= written
