"""The policy for every service, on each profile as Compose itself resolves it: `gpu` and Grafana do not run here."""

import pytest

from tests.stack.containers.test_compose_policy import (  # noqa: F401 - tests of `services` run here with Compose's own
    ALWAYS,
    BESIDE,
    PROFILES,
    read_with_compose,
    test_dependencies_are_healthy,
    test_engines_say_what_they_are,
    test_every_service,
    test_locust_ends_by_interrupt,
    test_only_engines_that_fetch_models_get_the_token,
)

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", params=PROFILES)
def services(request, engine):
    found = read_with_compose(list(engine.compose), request.param)
    assert set(found) == ALWAYS | PROFILES[request.param] | BESIDE.get(request.param, set())
    return found


def test_gpus_are_reserved_by_id_as_compose_resolves_it(engine):
    for name, service in read_with_compose(list(engine.compose), "gpu").items():
        reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        ids = [each.get("device_ids") for each in reserved]
        assert ids == ([["0"]] if name in PROFILES["gpu"] else [None] if name == "gpu-exporter" else [])
        assert all(each["driver"] == "nvidia" and "gpu" in each["capabilities"] for each in reserved)
