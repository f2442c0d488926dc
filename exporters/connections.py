"""How many connections an exporter holds, and how long: whoever can reach its port can open as many as he likes.

Where there is no room, the connection that has gone longest without a request makes some: so a scrape, which asks as
soon as it is there, gets through whatever is held open beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

MOST = 64
"""Connections that are held at a time."""
HEAD_LIMIT_S = 10.0
"""Longest that a new connection may take until its first request's head is whole."""
IDLE_LIMIT_S = 60.0
"""Longest between two requests, the head of the second one included. Prometheus asks every few seconds."""
REQUEST_LIMIT_S = 30.0
"""Longest for a request, until its answer has been read."""
SWEEP_S = 1.0
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ALL_ADDRESSES = ("", "0.0.0.0", "::", "*")  # noqa: S104

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass(slots=True)
class _Connection:
    since: float
    """When its last request ended, or the one in hand began; before there was one, when it was opened."""
    busy: bool = False
    asked: bool = False

    def late(self, now: float) -> bool:
        limit = REQUEST_LIMIT_S if self.busy else IDLE_LIMIT_S if self.asked else HEAD_LIMIT_S
        return now - self.since > limit


class Connections:
    """A server's connections. Call it for a new one's protocol; `middleware` tells it of requests."""

    def __init__(self, most: int = MOST) -> None:
        self.server: web.Server | None = None
        """Makes the protocols."""
        self._most = most
        self._held: dict[asyncio.BaseProtocol, _Connection] = {}

    def __call__(self) -> asyncio.BaseProtocol:
        """A new connection's protocol."""
        if self.server is None:
            raise RuntimeError("there is no server yet")
        if len(self._held) >= self._most:
            self.sweep(time.monotonic())  # those that have ended must not count, nor pass for busy
        while len(self._held) >= self._most:
            idle = [protocol for protocol, state in self._held.items() if not state.busy]
            self._drop(min(idle or self._held, key=lambda protocol: self._held[protocol].since))
        protocol = self.server()
        self._held[protocol] = _Connection(time.monotonic())
        return protocol

    def _drop(self, protocol: asyncio.BaseProtocol) -> None:
        del self._held[protocol]
        transport = getattr(protocol, "transport", None)
        if transport is not None:
            transport.abort()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep in mind that the connection is at work."""
        state = self._held.get(request.protocol)
        if state is not None:
            state.busy, state.asked, state.since = True, True, time.monotonic()
        return await handler(request)

    def sweep(self, now: float) -> None:
        """Forget connections that have ended, and end those that are late."""
        for protocol, state in list(self._held.items()):
            transport = getattr(protocol, "transport", None)
            if transport is None and (state.asked or now - state.since > SWEEP_S):  # it has ended, and is not just made
                del self._held[protocol]
            elif state.busy and getattr(protocol, "_current_request", None) is None:
                state.busy, state.since = False, now
            elif state.late(now):
                self._drop(protocol)

    async def keep_sweeping(self) -> None:
        """Sweep until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(time.monotonic())


def guard(bound_to: str) -> Middleware:
    """A middleware that refuses what a foreign web page could send through a visitor's browser, or read.

    A page elsewhere has another Origin; one that points a name of its own at this machine has another Host.
    """
    allowed = {*LOCAL_NAMES, bound_to}

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            host = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            host = request.host
        if host not in allowed and bound_to not in ALL_ADDRESSES:
            raise web.HTTPForbidden(text=f"This server does not answer under the name {host[:80]!r}.\n")
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site")
        foreign = urlsplit(origin).netloc != request.host if origin is not None else site == "cross-site"
        if foreign and request.method not in ("GET", "HEAD", "OPTIONS"):
            raise web.HTTPForbidden(text="Cross-origin requests are refused.\n")
        return await handler(request)

    return refuse


class Room:
    """Bytes of request bodies that are held at a time, over all connections."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], bool]]:
        """Yields a function that takes so many bytes more and says whether there was room; all are given back after."""
        taken = 0

        def take(size: int) -> bool:
            nonlocal taken
            if size > self._left:
                return False
            self._left -= size
            taken += size
            return True

        try:
            yield take
        finally:
            self._left += taken
