import socket

import pytest

from loadgen.errors import UserError
from loadgen.settings import Paths, Settings
from stack.cpus import plan_cpus
from stack.processes.ports import check_ports, free_ports, with_ports
from stack.processes.programs import programs


@pytest.fixture
def taken():
    """A port that this process holds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def stack_of(settings, tmp_path):
    return programs(settings, Paths(tmp_path), plan_cpus((0, 1)), tmp_path / "prometheus", None)


def test_a_port_that_is_taken_is_named_with_its_holder_and_another_is_found(tmp_path, taken):
    settings = Settings(_env_file=None).model_copy(update={"prometheus_port": taken})
    stack = stack_of(settings, tmp_path)
    with pytest.raises(UserError, match=f"{taken} for prometheus: held by process .*BAKEOFF_PROMETHEUS_PORT"):
        check_ports(stack, tmp_path)
    moved = free_ports(settings, stack)
    assert moved["BAKEOFF_PROMETHEUS_PORT"] not in settings.ports().values()
    now = with_ports(settings, moved)
    assert now.prometheus_port == moved["BAKEOFF_PROMETHEUS_PORT"]
    assert not free_ports(now, stack_of(now, tmp_path))
