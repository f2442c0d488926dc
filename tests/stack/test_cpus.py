import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.cpus import plan_cpus


@pytest.mark.parametrize(
    ("cpus", "engine", "traffic"),
    [
        ([0], (0,), (0,)),
        ([0, 1], (0, 1), (0, 1)),
        ([4, 5, 6], (4, 5, 6), (4, 5, 6)),
        ([0, 1, 2, 3], (0, 1, 2), (3,)),
        ([7, 2, 3, 9, 8], (2, 3, 7, 8), (9,)),
    ],
)
def test_the_last_core_makes_traffic_where_there_are_four(cpus, engine, traffic):
    plan = plan_cpus(cpus)
    assert (plan.engine, plan.traffic) == (engine, traffic)
    assert set(plan.engine).isdisjoint(plan.traffic) == (len(cpus) >= 4)


@given(st.sets(st.integers(0, 255), min_size=1, max_size=128), st.integers(1, 64))
def test_traffic_gets_what_it_can_use_and_a_quarter_at_most(cpus, workers):
    plan = plan_cpus(tuple(cpus), workers + 1)
    assert set(plan.engine) | set(plan.traffic) == cpus
    if len(cpus) < 4:
        assert set(plan.engine) == set(plan.traffic) == cpus
    else:
        assert not set(plan.engine) & set(plan.traffic)
        assert 1 <= len(plan.traffic) <= workers + 1
        assert len(plan.engine) >= 0.75 * len(cpus)


def test_no_cores_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        plan_cpus([])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_the_command_runs_on_its_cores():
    core = min(os.sched_getaffinity(0))
    code = "import os; print(os.sched_getaffinity(0))"
    command = [sys.executable, "-m", "stack.cpus", str(core), sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"{{{core}}}"


def test_a_command_that_is_not_there_is_one_line():
    command = [sys.executable, "-m", "stack.cpus", "0", "/no/such/program"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "cannot start /no/such/program: No such file or directory\n"
