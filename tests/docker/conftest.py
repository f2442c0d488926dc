"""The docker tier's fixtures. Its tests run with `-m docker` only: they may install and start a Docker engine."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from tests.docker import commands, site_settings
from tests.docker.base_images import build_base_images
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
