"""The container stack with two simulated engines, which the files `test_stack_sim*.py` share in this order."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import docker
import requests
from docker.models.containers import Container

from loadgen.runs.folder import RunFolder
from tests.docker.checkout import Checkout

T = TypeVar("T")
ENGINES = {"sim-vllm", "sim-ksana"}


def wait_for(get: Callable[[], T], limit_s: float = 300.0, what: str = "it") -> T:
    """What `get` gives as soon as it gives something."""
    deadline = time.monotonic() + limit_s
    while not (found := get()):
        assert time.monotonic() < deadline, f"{what} did not happen within {limit_s:g} s"
        time.sleep(0.2)
    return found


def newest_run(checkout: Checkout) -> RunFolder:
    """The run that began last."""
    return RunFolder.find(checkout.folder / "runs", None)


def health(container: Container) -> str:
    """Docker's word for it."""
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


def status(checkout: Checkout) -> dict[str, Any]:
    """What Locust's master tells of the block that runs or ran last."""
    try:
        told: dict[str, Any] = checkout.get("LOCUST", "/bakeoff/block")
    except requests.RequestException:
        return {"state": "gone"}
    return told


def in_mid_block(checkout: Checkout) -> str | None:
    """The engine that is raced now, when a good part of its block is left."""
    told = status(checkout)
    running = told["state"] == "running" and 10 <= told["received"] < 100
    return str(told["block"]).partition(".")[0] if running else None


def opened(checkout: Checkout, client: docker.DockerClient) -> Checkout:
    """The checkout open to other machines: to containers of other networks, which know this machine's address only."""
    return checkout.having(BAKEOFF_LAN_ADDRESS=gateway(client.networks.get("bridge").attrs))


def gateway(network: Mapping[str, Any]) -> str:
    """This machine's address in a network. Of a default bridge that is new Docker may tell the subnet only."""
    config = network["IPAM"]["Config"][0]
    return str(config.get("Gateway") or next(ipaddress.ip_network(config["Subnet"]).hosts()))


def answers(url: str) -> bool:
    """Whether anybody does."""
    try:
        requests.get(url, timeout=2)
    except requests.RequestException:
        return False
    return True
