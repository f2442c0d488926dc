import pytest

from loadgen.hosts.container_facts import ContainerState
from stack.containers.watch import ServiceState


def state(status="running", health=None, *, restarts=0, exit_code=0, output=""):
    return ServiceState(
        "locust",
        "bakeoff-locust-1",
        ContainerState(
            status=status,
            health=health,
            health_output=output,
            exit_code=exit_code,
            oom_killed=False,
            error="",
            restarts=restarts,
            started_at="",
            finished_at="",
        ),
        (),
    )


@pytest.mark.parametrize(
    ("found", "word", "failed"),
    [
        (state(health="healthy"), "healthy", False),
        (state(health="starting"), "starting", False),
        (state(health="unhealthy"), "unhealthy", True),
        (state(), "running", False),
        (state("created"), "created", False),
        (state("exited", exit_code=1), "exited", True),
        (state("restarting", restarts=2), "restarting", True),
        (state(health="starting", restarts=1), "starting", True),
        (state(health="healthy", restarts=1), "healthy", False),
    ],
)
def test_words(found, word, failed):
    assert (found.word, found.failed) == (word, failed)


def test_how_it_failed():
    assert state(health="unhealthy", output="refused").how == "its health check fails: refused"
    assert state("exited", exit_code=3).how == "it ended with exit code 3"
    assert "started it anew" in state(health="starting", restarts=2).how
