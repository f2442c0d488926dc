"""The end of the stack with two simulated engines."""

import psutil
import pytest

from tests.docker.sim_stack import answers, newest_run

pytestmark = pytest.mark.docker


def test_down_leaves_volumes_alone_and_clean_leaves_nothing(checkout, client, brought_up):
    ids = [container.id for container in checkout.containers(client)]
    down = checkout.make("down")
    assert down.status == 0, down.text
    left = checkout.left(client)
    assert (left["containers"], left["networks"]) == ([], [])
    assert left["volumes"] == [f"{checkout.project}_prometheus-data"]
    assert [port for port in ("LOCUST", "PROMETHEUS", "SIM_VLLM") if answers(checkout.url(port))] == []
    running = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in running if any(each in line for each in ids) or str(checkout.folder) in line] == []
    again = checkout.make("down")
    assert again.status == 0, again.text

    clean = checkout.make("clean")
    assert clean.status == 0, clean.text
    assert checkout.left(client) == {"containers": [], "networks": [], "volumes": []}
    assert newest_run(checkout).path.is_dir()
