import re

import pytest

from loadgen.errors import UserError
from stack.choice import Found, choose

DOCKER = Found(no_docker="")
GPU = Found(no_docker="", gpu_driver=True, gpu_runtime=True)
ONE = {"gpus": "1 x NVIDIA H200", "no_gpu": ""}
NONE = Found(no_docker="no Docker engine: there is no /var/run/docker.sock")


@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        (NONE, {}, ("processes", "cpu")),
        (Found("no Docker", **ONE), {}, ("processes", "gpu")),
        (Found("no Docker", **ONE), {"profile": "cpu"}, ("processes", "cpu")),
        (Found("no Docker", gpus="1 x NVIDIA H200", no_gpu="no wheel"), {}, ("processes", "cpu")),
        (Found("no Docker", gpus="1 x NVIDIA H200", no_gpu="no wheel"), {"profile": "gpu"}, ("processes", "gpu")),
        (Found("", **ONE), {"runtime": "processes"}, ("processes", "gpu")),
        (NONE, {"running": "processes", "profile": "gpu"}, ("processes", "gpu")),
        (DOCKER, {}, ("docker", "cpu")),
        (GPU, {}, ("docker", "gpu")),
        (Found("", gpu_driver=True), {}, ("docker", "cpu")),
        (Found("", gpu_runtime=True), {}, ("docker", "cpu")),
        (GPU, {"profile": "sim"}, ("docker", "sim")),
        (GPU, {"runtime": "processes"}, ("processes", "cpu")),
        (DOCKER, {"runtime": "docker"}, ("docker", "cpu")),
        (DOCKER, {"running": "processes"}, ("processes", "cpu")),
        (GPU, {"running": "docker", "profile": "sim"}, ("docker", "sim")),
    ],
)
def test_choices(found, asked, expected):
    choice = choose(found, **asked)
    assert (choice.runtime, choice.profile) == expected


@pytest.mark.parametrize(
    ("found", "asked", "words"),
    [
        (
            NONE,
            {},
            r"plain processes \(no Docker engine: there is no /var/run/docker.sock\), "
            r"profile cpu \(no NVIDIA driver here\)",
        ),
        (Found("no Docker", **ONE), {}, r"plain processes \(no Docker\), profile gpu \(1 x NVIDIA H200\)"),
        (Found("no Docker", gpus="1 x NVIDIA H200", no_gpu="no wheel"), {}, r"profile cpu \(no wheel\)"),
        (
            Found("", **ONE),
            {"runtime": "processes", "profile": "gpu"},
            r"RUNTIME=processes\), profile gpu \(as asked\)",
        ),
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
        (NONE, {"profile": "sim"}, "PROFILE=sim is for containers, .* is all there is: no Docker engine"),
        (DOCKER, {"runtime": "processes", "profile": "sim"}, "PROFILE=sim is for containers"),
        (NONE, {"profile": "gpu"}, "PROFILE=gpu, and no NVIDIA driver here"),
        (DOCKER, {"runtime": "embedded"}, "RUNTIME=embedded is now called RUNTIME=processes"),
        (DOCKER, {"runtime": "podman"}, "unknown runtime 'podman': there are docker, processes"),
        (DOCKER, {"runtime": "processes", "running": "docker"}, "up as containers: run `make down` before RUNTIME"),
        (DOCKER, {"runtime": "docker", "running": "processes"}, "up as plain processes: run `make down`"),
    ],
)
def test_what_cannot_be(found, asked, message):
    with pytest.raises(UserError, match=message):
        choose(found, **asked)
