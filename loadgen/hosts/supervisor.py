"""Engines as plain processes under supervisord."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import psutil

from loadgen.errors import UserError
from loadgen.files import tail
from loadgen.hosts.base import Progress, Starting, known_cause, quoted, unknown_engine
from loadgen.hosts.http_probe import accepts_connections, http_status
from loadgen.hosts.remains import clear, kill, launched, renew, shared_memory, sweep
from loadgen.hosts.stack_file import DockerStack, HostedEngine, SupervisorStack, read_stack
from loadgen.message import say

# Supervisor's process states (supervisor.states.ProcessStates).
STARTING, RUNNING, BACKOFF, STOPPING = 10, 20, 30, 40
ALIVE = (STARTING, RUNNING, BACKOFF, STOPPING)


class SupervisorHost:
    """Engines as programs of a supervisord that this user runs, reached over its Unix socket (XML-RPC).

    One engine serves at a time, as on a single GPU, unless it is said that others may run beside it.
    """

    restarts = True

    def __init__(self, stack: SupervisorStack) -> None:
        self.stack = stack
        # Where in its log each engine's latest start begins: an earlier start's end is not this one's cause.
        self._log_from: dict[str, int] = {}

    @classmethod
    def of_checkout(cls, checkout: Path) -> SupervisorHost:
        """The host of the stack that runs in this checkout. Raises UserError if none does, or one of containers."""
        stack = read_stack(checkout)
        if isinstance(stack, DockerStack):
            raise UserError("this checkout's stack runs in containers, not as plain processes: `make down` ends it")
        host = cls(stack)
        host.state_of(next(iter(host.stack.engines)))
        return host

    def start(self, name: str, on_progress: Progress | None = None, *, alone: bool = True) -> None:
        """Stop the other engines, start this one, and wait until it is healthy (see EngineHost.start)."""
        engine = self._engine(name)
        if alone:
            self._stop_others(name)
        if self.is_up(name):
            return
        if self.state_of(name)["state"] not in ALIVE:
            _end_remnants(engine)
            self._check_port(engine)
            if engine.temp is not None:
                renew(engine.temp)
            self._log_from[name] = engine.log.stat().st_size if engine.log.exists() else 0
            self.start_program(name)
        self._wait_until_healthy(engine, on_progress)

    def stop(self, name: str) -> None:
        """Stop an engine and wait until its processes are gone and its port is free."""
        engine = self._engine(name)
        if self.state_of(name)["state"] not in ALIVE:
            return
        held = shared_memory(_group(engine))
        with contextlib.suppress(xmlrpc.client.Fault):  # it may have ended by itself meanwhile
            self._call("stopProcess", name, False)
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            if self.state_of(name)["state"] not in ALIVE and not accepts_connections(engine.base_url):
                _end_remnants(engine)
                sweep(held)
                return
            time.sleep(0.1)
        raise UserError(f"{name} does not stop: run `make down`, which kills what is left")

    def stop_all(self) -> None:
        """Stop every engine of the stack."""
        for name in self.running():
            self.stop(name)

    def is_up(self, name: str) -> bool:
        """Whether the engine's process runs and its health check answers 200."""
        engine = self._engine(name)
        return self.state_of(name)["state"] == RUNNING and http_status(engine.health_url) == 200

    def running(self) -> list[str]:
        """The engines that have a process now."""
        return [name for name in self.stack.engines if self.state_of(name)["state"] in ALIVE]

    def pids(self, name: str) -> list[int]:
        """The engine's first process, if it runs."""
        return [pid] if (pid := int(self.state_of(self._engine(name).name)["pid"])) else []

    def locust_pids(self) -> list[int]:
        """The processes of the stack's Locust, the master's and the workers'."""
        programs = self._call("getAllProcessInfo")
        return [int(each["pid"]) for each in programs if each["name"].startswith("locust-") and each["pid"]]

    def stack_pids(self) -> list[int]:
        """Supervisor, whose children all others are."""
        return [int(self._call("getPID"))]

    def describe(self, name: str) -> dict[str, Any]:
        """The launch record the engine's launcher wrote, and the pid and endpoint it has now."""
        engine = self._engine(name)
        facts: dict[str, Any] = {"host": "supervisor", "kind": engine.kind, "base_url": engine.base_url}
        try:
            facts |= json.loads(engine.launch_record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts["notes"] = ["not launched yet"]
        state = self.state_of(name)
        facts["pid"] = state["pid"] or None
        facts["state"] = str(state["statename"]).lower()
        return facts

    def how_it_ended(self, name: str) -> str:
        """The end of the engine's last run in words; empty if it runs."""
        state = self.state_of(self._engine(name).name)
        return "" if state["state"] in ALIVE else _how_it_ended(state)

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of the engine's log (of its latest start, if this host started it)."""
        return tail(self._engine(name).log, lines, self._log_from.get(name, 0))

    def state_of(self, name: str) -> dict[str, Any]:
        """Supervisor's own facts about a program: state, pid, exitstatus, start and stop times."""
        facts = self._call("getProcessInfo", name)
        assert isinstance(facts, dict)  # noqa: S101 - XML-RPC has no types
        return facts

    def start_program(self, name: str) -> None:
        """Ask supervisor to start a program, engine or not, without waiting. Raises UserError if it cannot."""
        from supervisor.xmlrpc import Faults

        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.ALREADY_STARTED:
                return
            if fault.faultCode == Faults.NO_FILE and name in self.stack.engines:
                advice = f"it is not set up: run `.venv/bin/python -m stack setup --engine {name}`"
                raise UserError(f"{name} cannot start: {advice}") from None
            raise UserError(f"{name} cannot start: supervisor says {fault.faultString}") from None

    def shutdown(self) -> None:
        """End the whole stack: supervisord stops its programs and exits."""
        self._call("shutdown")

    def _engine(self, name: str) -> HostedEngine:
        try:
            return self.stack.engines[name]
        except KeyError:
            raise unknown_engine(name, self.stack.engines) from None

    def _stop_others(self, name: str) -> None:
        """No other engine may hold cores or memory, nor what one that died left behind."""
        for other, engine in self.stack.engines.items():
            if other != name:
                self.stop(other)
                _end_remnants(engine)

    def _check_port(self, engine: HostedEngine) -> None:
        """Someone else's server on our port would pass for the engine."""
        if accepts_connections(engine.base_url):
            variable = engine.port_variable or f"BAKEOFF_{engine.name.upper()}_PORT"
            raise UserError(
                f"something else listens at {engine.base_url}, where {engine.name} should: "
                f"end it, or choose another port with {variable} and run `make down` and `make up`"
            )

    def _wait_until_healthy(self, engine: HostedEngine, on_progress: Progress | None) -> None:
        began = said = time.monotonic()
        starting = Starting(engine.name)
        while True:
            state = self.state_of(engine.name)
            if state["state"] == RUNNING and http_status(engine.health_url) == 200:
                return
            if state["state"] not in ALIVE:
                raise self._failed(engine, _how_it_ended(state))
            now = time.monotonic()
            if now - began > engine.start_limit_s:
                self.stop(engine.name)
                raise self._failed(engine, f"it did not answer within {engine.start_limit_s:.0f} s")
            if on_progress and now - said >= 10:
                said = now
                on_progress(starting.words(now - began, self.log_tail(engine.name, 1)))
            time.sleep(0.25)

    def _failed(self, engine: HostedEngine, how: str) -> UserError:
        """The error for an engine that did not come up."""
        cause = known_cause(self.log_tail(engine.name, 200))
        lines = quoted(self.log_tail(engine.name, 12))
        return UserError(f"{engine.name} did not start{cause} ({how}).\nThe last lines of {engine.log}:\n{lines}")

    def _call(self, method: str, *arguments: object) -> Any:
        """One XML-RPC call on a connection of its own. Raises UserError if supervisord does not answer."""
        from supervisor.xmlrpc import Faults, SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.stack.socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport, allow_none=True)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise UserError("the stack is going down: somebody ran `make down`") from None
            raise
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, ExpatError):
            raise UserError("the stack does not run (supervisord does not answer): start it with `make up`") from None
        finally:
            transport.close()


def _end_remnants(engine: HostedEngine) -> None:
    """Kill what is left of an engine after its first process ended (a killed engine's children), and its files."""
    kill(_group(engine))
    if engine.temp is not None:
        clear(engine.temp)


def _group(engine: HostedEngine) -> list[psutil.Process]:
    return launched(engine.launch_record, engine.launch_record.parent.parent / "engines" / engine.name)


def _how_it_ended(state: Mapping[str, Any]) -> str:
    """A program's end in words."""
    status = int(state.get("exitstatus", 0))
    if status == 0 and state.get("spawnerr"):
        return str(state["spawnerr"])
    if status < 0 or status > 128:
        return say("a signal ended it, as the system does when memory runs out")
    return say("it ended with exit status {status}", status=status)
