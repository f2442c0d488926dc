"""Drives a Locust master through its web API, as a person pressing its buttons would."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests
from pydantic import ValidationError
from pydantic_core import to_json

from loadgen.contention.reading import Contention
from loadgen.distributed.messages import CONTENTION_FIELD, REQUEST_FIELD
from loadgen.distributed.status import BlockStatus
from loadgen.errors import UserError
from loadgen.traffic.plan import BlockRequest

TIMEOUT_S = 60.0
START_TIMEOUT_S = 600.0
"""The master probes how the engine counts tokens before it answers; a slow engine takes its time."""


class LocustGone(Exception):
    """The master does not answer any more."""


class LocustClient:
    """A master's web API at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self.pids: Callable[[], list[int]] = list
        """Its processes on this machine, the master's and the workers'; none where nobody can tell."""

    def setup(self) -> dict[str, Any]:
        """Where the master keeps runs, the engines that it knows, its packages' versions. Raises LocustGone."""
        return self._get("/bakeoff/setup")

    def status(self) -> BlockStatus:
        """State of the block and of the workers. Raises LocustGone."""
        data = self._get("/bakeoff/block")
        try:
            return BlockStatus.model_validate(data)
        except ValidationError:
            raise LocustGone(f"Locust at {self.url} is of another version of Bakeoff: {str(data)[:120]}") from None

    def start_block(self, request: BlockRequest) -> None:
        """Submit the start form: Locust's own fields, and the request in a field that people do not see.

        Raises:
            UserError: the form was refused, with the master's reason.
            LocustGone: the master does not answer.
        """
        users = str(max(request.cell.concurrency, 1))
        form = {"user_count": users, "spawn_rate": users, REQUEST_FIELD: request.model_dump_json()}
        reply = self._json("POST", "/swarm", form, START_TIMEOUT_S)
        if not reply.get("success"):
            raise UserError(str(reply.get("message") or f"Locust refused to start: {reply}"))

    def tell_contention(self, run_id: str, block: str, reading: Contention) -> None:
        """Have the master show what else the machine does, or did, during a block. Raises LocustGone."""
        body = to_json(reading).decode()
        self._json("POST", "/bakeoff/contention", {"run_id": run_id, "block": block, CONTENTION_FIELD: body})

    def stop(self) -> None:
        """Press stop. Raises LocustGone."""
        self._json("POST", "/stop", {})

    def wait_for_workers(self, count: int, limit_s: float) -> int:
        """Wait until at least `count` workers are connected and idle; return how many there are.

        Raises:
            UserError: they did not come in time.
            LocustGone: the master does not answer.
        """
        deadline = time.monotonic() + limit_s
        while True:
            status = self.status()
            if status.workers >= count and status.idle:
                return status.workers
            if time.monotonic() >= deadline:
                raise UserError(
                    f"Locust at {self.url} has {status.workers} of {count} workers ready (state {status.state}) "
                    f"after {limit_s:g} s."
                )
            time.sleep(0.2)

    def _get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path, None)

    def _json(
        self, method: str, path: str, form: dict[str, str] | None, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        try:
            response = self._session.request(method, self.url + path, data=form, timeout=timeout_s)
        except requests.RequestException as error:
            raise LocustGone(f"Locust at {self.url} does not answer ({type(error).__name__})") from None
        try:
            data = response.json()
        except requests.JSONDecodeError:
            raise LocustGone(
                f"{method} {self.url}{path}: HTTP {response.status_code}, not Bakeoff's Locust: {response.text[:120]!r}"
            ) from None
        return data if isinstance(data, dict) else {"data": data}
