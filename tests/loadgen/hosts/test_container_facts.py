"""What is read out of `docker inspect`, and that no secret comes along."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.hosts.container_facts import (
    REDACTED,
    ContainerState,
    redacted_arguments,
    redacted_environment,
    unix_seconds,
)
from tests.loadgen.hosts.fake_docker import attributes


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hf_token", "GF_SECURITY_ADMIN_PASSWORD", "AWS_SECRET_ACCESS_KEY", "VLLM_API_KEY", "REGISTRY_AUTH"],
)
def test_secrets_are_redacted(name):
    assert redacted_environment([f"{name}=x"]) == {name: REDACTED}
    option = "--" + name.lower().replace("_", "-")
    assert redacted_arguments(["serve", option, "x", "y", f"{option}=x"]) == [
        *("serve", option, REDACTED, "y"),
        f"{option}={REDACTED}",
    ]


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "BAKEOFF_CONTEXT_TOKENS", "VLLM_CPU_KVCACHE_SPACE", "PATH", "OMP_NUM_THREADS"]
)
def test_what_is_no_secret_stays(name):
    assert redacted_environment([f"{name}=x=y"]) == {name: "x=y"}
    option = "--" + name.lower().replace("_", "-")
    assert redacted_arguments([option, "x"]) == [option, "x"]


def test_passwords_in_urls_are_redacted():
    assert redacted_environment(["HTTPS_PROXY=http://me:hunter2@proxy:3128"]) == {
        "HTTPS_PROXY": f"http://{REDACTED}@proxy:3128"
    }
    assert redacted_arguments(["http://me@host/"]) == [f"http://{REDACTED}@host/"]


@given(st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)))
def test_moments(moment):
    text = moment.isoformat(timespec="microseconds").replace("+00:00", "789Z")
    assert unix_seconds(text) == pytest.approx(moment.timestamp(), abs=1e-5)


def test_moments_that_are_none():
    assert unix_seconds("0001-01-01T00:00:00Z") is None
    assert unix_seconds("") is None
    assert unix_seconds("2026-11-22T18:00:00+01:00") == unix_seconds("2026-11-22T17:00:00Z")


@pytest.mark.parametrize(
    ("status", "alive"),
    [("created", False), ("running", True), ("restarting", True), ("paused", True), ("exited", False), ("dead", False)],
)
def test_states(status, alive):
    told = attributes("x")
    told["State"]["Status"] = status
    assert ContainerState.of(told).alive is alive


def test_a_container_without_a_health_check():
    told = attributes("x")
    del told["State"]["Health"]
    assert ContainerState.of(told).health is None
    told["State"]["Health"] = {"Status": "none"}
    assert ContainerState.of(told).health is None
