from collections.abc import Iterator

import pytest

from tests.fake_prometheus import FakePrometheus


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.stop()
