"""Engines that someone else runs."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from loadgen.errors import UserError
from loadgen.hosts.base import Progress, unknown_engine
from loadgen.hosts.http_probe import get_json, http_status
from loadgen.machine import is_loopback, listeners

PATHS = ("/v1/models", "/models", "/health")
PATH_LIMIT_S = 5
Access = tuple[Mapping[str, str], ssl.SSLContext | None]
"""Headers of a request, and by which authorities the server is known."""
PLAIN: Access = ({}, None)


class ExternalHost:
    """Endpoints that someone else runs: starting checks that one answers, stopping leaves it alone."""

    restarts = False

    def __init__(self, endpoints: Mapping[str, str], access: Mapping[str, Access] | None = None) -> None:
        """`endpoints` are base URLs by engine name; a trailing `/v1` is accepted. `access`: how, where not plainly."""
        self._access = access or {}
        self._urls = {name: url.rstrip("/").removesuffix("/v1") for name, url in endpoints.items()}

    def start(self, name: str, on_progress: Progress | None = None, *, alone: bool = True) -> None:
        """Check that the endpoint answers at all; the others are left alone. Raises UserError if it does not."""
        url = self._url(name)
        if on_progress:
            on_progress(f"{name}: asking {url} ({len(PATHS) * PATH_LIMIT_S} s at most)")
        if not self.is_up(name):
            raise UserError(f"{name} does not answer at {url}: is it running, and is the address right?")

    def stop(self, name: str) -> None:
        """Nothing: who started it stops it."""
        self._url(name)

    def stop_all(self) -> None:
        """Nothing."""

    def is_up(self, name: str) -> bool:
        """Whether anything below 500 is answered on a path that engines have (a 401 or 404 is an answer too)."""
        url = self._url(name)
        statuses = (http_status(url + path, PATH_LIMIT_S, *self._access.get(name, PLAIN)) for path in PATHS)
        return any(status is not None and status < 500 for status in statuses)

    def running(self) -> list[str]:
        """The endpoints that answer."""
        return [name for name in self._urls if self.is_up(name)]

    def pids(self, name: str) -> list[int]:
        """Who listens at the endpoint's port, if its address is this machine's loopback."""
        where = urlsplit(self._url(name))
        return listeners(where.port) if where.port and is_loopback(where.hostname) else []

    def stack_pids(self) -> list[int]:
        """None: there is no stack."""
        return []

    def describe(self, name: str) -> dict[str, Any]:
        """What the endpoint tells of itself."""
        url = self._url(name)
        facts: dict[str, Any] = {"host": "external", "base_url": url, "notes": ["started by someone else"]}
        for key, path in (("models", "/v1/models"), ("version", "/version")):
            answer = get_json(url + path, PATH_LIMIT_S, *self._access.get(name, PLAIN))
            if answer is not None:
                facts[key] = answer
        return facts

    def how_it_ended(self, name: str) -> str:
        """Always empty: who started it knows."""
        self._url(name)
        return ""

    def log_tail(self, name: str, lines: int = 20) -> str:
        """Always empty: the log is elsewhere."""
        self._url(name)
        return ""

    def _url(self, name: str) -> str:
        """Raises UserError for an unknown name."""
        try:
            return self._urls[name]
        except KeyError:
            raise unknown_engine(name, self._urls) from None
