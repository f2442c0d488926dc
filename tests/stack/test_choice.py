import re

import pytest

from loadgen.errors import UserError
from stack.choice import Found, choose

DOCKER = Found(no_docker="")
GPU = Found(no_docker="", gpu_driver=True, gpu_runtime=True)
NONE = Found(no_docker="no Docker engine: there is no /var/run/docker.sock")


@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        (NONE, {}, ("processes", "")),
        (DOCKER, {}, ("docker", "cpu")),
        (GPU, {}, ("docker", "gpu")),
        (Found("", gpu_driver=True), {}, ("docker", "cpu")),
        (Found("", gpu_runtime=True), {}, ("docker", "cpu")),
        (GPU, {"profile": "sim"}, ("docker", "sim")),
        (GPU, {"runtime": "processes"}, ("processes", "")),
        (DOCKER, {"runtime": "docker"}, ("docker", "cpu")),
        (DOCKER, {"running": "processes"}, ("processes", "")),
        (GPU, {"running": "docker", "profile": "sim"}, ("docker", "sim")),
    ],
)
def test_choices(found, asked, expected):
    choice = choose(found, **asked)
    assert (choice.runtime, choice.profile) == expected


@pytest.mark.parametrize(
    ("found", "asked", "words"),
    [
        (NONE, {}, r"plain processes \(no Docker engine: there is no /var/run/docker.sock\)"),
        (DOCKER, {}, r"containers \(a Docker engine and Compose answer\), profile cpu \(no NVIDIA driver here\)"),
        (Found("", gpu_driver=True), {}, r"profile cpu \(Docker has no NVIDIA runtime\)"),
        (GPU, {}, r"profile gpu \(an NVIDIA driver and container runtime\)"),
        (DOCKER, {"runtime": "docker", "profile": "sim"}, r"containers \(RUNTIME=docker\), profile sim \(as asked\)"),
        (DOCKER, {"running": "processes"}, r"plain processes \(they are up\)"),
    ],
)
def test_the_reason_is_said(found, asked, words):
    assert re.search(words, choose(found, **asked).reason)


@pytest.mark.parametrize(
    ("found", "asked", "message"),
    [
        (NONE, {"runtime": "docker"}, "RUNTIME=docker, and no Docker engine"),
        (NONE, {"profile": "gpu"}, "PROFILE=gpu is for containers, .* is all there is: no Docker engine"),
        (DOCKER, {"runtime": "processes", "profile": "cpu"}, "PROFILE=cpu is for containers"),
        (DOCKER, {"runtime": "embedded"}, "RUNTIME=embedded is now called RUNTIME=processes"),
        (DOCKER, {"runtime": "podman"}, "unknown runtime 'podman': there are docker, processes"),
        (DOCKER, {"runtime": "processes", "running": "docker"}, "up as containers: run `make down` before RUNTIME"),
        (DOCKER, {"runtime": "docker", "running": "processes"}, "up as plain processes: run `make down`"),
    ],
)
def test_what_cannot_be(found, asked, message):
    with pytest.raises(UserError, match=message):
        choose(found, **asked)
