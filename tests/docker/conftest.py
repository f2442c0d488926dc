"""The docker tier's fixtures. Its tests run with `-m docker` only: they may install and start a Docker engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import docker
import pytest

from tests.docker import commands, site_settings
from tests.docker.base_images import build_base_images
from tests.docker.checkout import Checkout, Done, copy_checkout
from tests.docker.commands import step
from tests.docker.engine import Engine, running_engine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "docker" in config.option.markexpr:
        return
    deselected = [item for item in items if item.get_closest_marker("docker")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if not item.get_closest_marker("docker")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if commands.steps():
        terminalreporter.section("docker tier")
        for name, seconds in commands.steps():
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}")
        for line in commands.notes():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine that answers. The test is skipped where there is none and none can be installed."""
    try:
        with running_engine() as found:
            yield found
    except commands.NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=engine.host)
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def base_images(engine: Engine) -> dict[str, str]:
    """PYTHON_IMAGE and PROMETHEUS_IMAGE, built of Debian's packages; empty where upstream's are to be pulled."""
    return build_base_images(engine)


@pytest.fixture(scope="session")
def site_build_arguments() -> dict[str, str]:
    """Build arguments with which `pip` in a build reaches the registries as this host does."""
    return site_settings.build_arguments()


@pytest.fixture(scope="session")
def checkout(
    engine: Engine,
    base_images: dict[str, str],
    site_build_arguments: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Checkout]:
    """A checkout for the stack of two simulated engines, which `test_stack_sim*.py` share; not brought up yet."""
    settings = {**base_images, **site_build_arguments, "BAKEOFF_BUILD_NETWORK": "", "GRAFANA_IMAGE": "none"}
    copy = copy_checkout(tmp_path_factory.mktemp("sim"), engine, f"bakeoff-test-sim-{os.getpid()}", settings)
    yield copy
    copy.make("clean")
    shutil.rmtree(copy.folder)


@pytest.fixture(scope="session")
def brought_up(checkout: Checkout) -> Done:
    """That stack, up with two workers."""
    with step("make up PROFILE=sim"):
        done = checkout.make("up", "PROFILE=sim", "RUNTIME=docker", "WORKERS=2")
    assert done.status == 0, done.text
    return done


@pytest.fixture(scope="session")
def raced(checkout: Checkout, brought_up: Done) -> Done:
    """One race of both engines, and its run."""
    name = checkout.scenario("race", prompt_tokens=[64], load={"concurrency": [1, 4]}, requests=20)
    with step("make bench, two simulated engines"):
        done = checkout.make("bench", f"SCENARIO={name}")
    assert done.raced, done.text
    return done


@pytest.fixture(scope="session")
def long_race(checkout: Checkout, brought_up: Done) -> str:
    """A scenario whose blocks last for 15 s, ten of them after `in_mid_block`: long enough to break something."""
    return checkout.scenario("long", prompt_tokens=[64], load={"concurrency": [4]}, requests=300)


@pytest.fixture(scope="session")
def one_engine(checkout: Checkout, brought_up: Done) -> str:
    """As `long_race`, with the one block of one engine."""
    fields = {"prompt_tokens": [64], "load": {"concurrency": [4]}, "requests": 300}
    return checkout.scenario("one", engines=["sim-vllm"], **fields)
