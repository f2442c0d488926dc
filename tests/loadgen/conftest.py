"""For all tests of the load generator."""

from collections.abc import Iterator

import pytest

from tests.loadgen.command_line import CommandLine


@pytest.fixture(scope="module")
def loadgen() -> Iterator[CommandLine]:
    """`python -m loadgen`, kept up between calls; `run` comes first, or not at all, because gevent must patch first."""
    command = CommandLine()
    yield command
    command.close()
