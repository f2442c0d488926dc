"""What the kernel's files say, by files as the kernel writes them and by trees that are made up."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.contention import kernel as module
from loadgen.contention.kernel import Core, Kernel, Process, Quota, tree

NUMBERS = st.integers(0, 2**60)
PARSERS = ("cores", "process", "schedule", "pressure", "cpus", "groups", "quota")


@pytest.mark.parametrize("name", PARSERS)
@given(text=st.text())
def test_any_text_is_read_or_refused_with_a_value_error(name, text):
    with contextlib.suppress(ValueError):
        getattr(module, f"parse_{name}")(text)


@given(ticks=st.lists(NUMBERS, min_size=8, max_size=10), core=st.integers(0, 500))
def test_a_core_is_busy_in_processes_only(ticks, core):
    text = f"cpu  1 2 3 4\ncpu{core} {' '.join(map(str, ticks))}\nintr 5 6\n"
    assert module.parse_cores(text) == {core: Core(sum(ticks[:3]), ticks[7], sum(ticks[:8]))}


@given(name=st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=15), ticks=NUMBERS)
def test_a_process_may_be_called_anything(name, ticks):
    line = f"7 ({name}) S 3 " + " ".join(["0"] * 9 + [str(ticks), "1", "2", "3", "20", "0", "1", "0", "99", "0"])
    assert module.parse_process(line) == Process(name, "S", 3, ticks + 6, 99, ticks + 1)


@given(some=NUMBERS, full=NUMBERS)
def test_pressure_is_the_total(some, full):
    text = "".join(f"{k} avg10=0.00 avg60=1.02 avg300=0.3 total={v}\n" for k, v in (("some", some), ("full", full)))
    assert module.parse_pressure(text) == {"some": some, "full": full}


def test_groups_of_both_versions():
    text = "4:cpu,cpuacct:/docker/a\n0::/user.slice/b\n"
    assert module.parse_groups(text) == {"cpu": "/docker/a", "cpuacct": "/docker/a", "": "/user.slice/b"}


def test_a_quota_of_either_version():
    assert module.parse_quota("nr_periods 9\nnr_throttled 4\nthrottled_usec 7\n") == Quota(9, 4)
    with pytest.raises(ValueError, match="quota"):
        module.parse_quota("usage_usec 9\n")


def test_the_group_that_is_held_up_most_counts_also_where_it_is_a_parent(tmp_path: Path):
    inner = tmp_path / "fs" / "cgroup" / "pod" / "one"
    inner.mkdir(parents=True)
    (inner / "cpu.stat").write_text("nr_periods 10\nnr_throttled 1\n")
    (inner.parent / "cpu.stat").write_text("nr_periods 10\nnr_throttled 6\n")
    assert Kernel(sys=tmp_path).quota({"": "/pod/one"}) == Quota(10, 6)


def test_pressure_is_the_own_group_s_or_else_the_machine_s(tmp_path: Path):
    own = tmp_path / "fs" / "cgroup" / "one"
    own.mkdir(parents=True)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "memory").write_text("some avg10=0 total=5\n")
    kernel = Kernel(tmp_path, tmp_path)
    assert kernel.pressure("memory", {"": "/one"}) == {"some": 5}
    (own / "memory.pressure").write_text("some avg10=0 total=7\n")
    assert kernel.pressure("memory", {"": "/one"}) == {"some": 7}


def test_an_empty_machine_tells_nothing(tmp_path: Path):
    kernel = Kernel(tmp_path, tmp_path)
    assert (kernel.cores(), kernel.processes(), kernel.process(1)) == (None, {}, None)
    assert (kernel.affinity(1), kernel.waits(1), kernel.pressure("io"), kernel.quota({})) == (None, {}, None, None)
    assert (kernel.megahertz([0]), kernel.heats([0])) == (None, None)


def test_a_tree_has_all_descendants_and_ends_also_in_a_circle():
    def of(parent: int) -> Process:
        return Process("p", "S", parent, 0, 0)

    assert tree({1: of(0), 2: of(1), 3: of(2), 4: of(1), 5: of(5)}, [2, 5, 9]) == {2, 3, 5}
