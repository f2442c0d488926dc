"""Start, watch and end the stack: supervisord and its programs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from loadgen.errors import UserError
from loadgen.hosts.http_probe import http_status
from loadgen.hosts.stack_file import read_supervisor_stack, serving_file, stack_file
from loadgen.hosts.supervisor import ALIVE, RUNNING, STARTING, SupervisorHost
from loadgen.settings import Paths, Settings, load_settings, main_python, private_folder
from stack import setup
from stack.commands import need_disk, say, tail
from stack.cpus import available_cpus, plan_cpus
from stack.env_file import need_password, write_env_file
from stack.model import SERVED_NAME
from stack.processes import strays
from stack.processes.binaries import fetch_prometheus, find_grafana, find_prometheus
from stack.processes.grafana_config import render_grafana
from stack.processes.programs import (
    Program,
    engine_url,
    engines_here,
    programs,
    render_prometheus,
    render_supervisor,
    stack_environment,
    stack_key,
)
from stack.scrape_config import write_prometheus_files

READY_LIMIT_S = 60
RUN_DISK_GB = 1.0


class ProcessRuntime:
    """The stack of one checkout."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.settings = settings
        self.paths = paths
        self.cpus = plan_cpus(available_cpus())

    def programs(self) -> list[Program]:
        """The programs this machine can run with these settings."""
        prometheus = find_prometheus(self.settings, self.paths)
        return programs(self.settings, self.paths, self.cpus, prometheus, find_grafana(self.settings))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One `setup`, `up` or `down` at a time; a second waits for the first."""
        self.paths.state.mkdir(parents=True, exist_ok=True)
        with (self.paths.state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another command is at work on this checkout's stack: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def host(self) -> SupervisorHost | None:
        """The engine host of the running stack; None if no supervisord answers."""
        try:
            host = SupervisorHost(read_supervisor_stack(self.paths.checkout))
            host.state_of(next(iter(host.stack.engines)))
        except UserError:
            return None
        return host

    def up(self, engine: str | None) -> list[str]:
        """Start what does not run yet, and one engine (None: none is started, one that serves goes on).

        Returns what is missing or failed and can be done without, a line each. Raises UserError for what cannot.
        """
        need_disk(self.paths.state, RUN_DISK_GB, "running the stack")
        if engine:
            setup.ensure_engine(self.paths, engine)
        lacking = self._find_prometheus()
        stack = self.programs()
        if any(program.name == "grafana" for program in stack):
            self._need_grafana_password()
        else:
            lacking.append(
                "Grafana is not here (put `grafana` on PATH or set GRAFANA_BIN): no live dashboards. "
                "`make dashboards` prints them as a page; all else works without it."
            )
        host = self.host()
        if host is None:
            self._start_supervisor(stack)
            host = SupervisorHost(read_supervisor_stack(self.paths.checkout))
        elif self._key_running() != stack_key(stack, self.settings, self.paths):
            raise UserError("the stack runs with other settings than those asked for now: run `make down` first")
        lacking += self._start_services(host, stack)
        if any(program.name == "grafana" for program in stack):
            lacking += setup.ensure_annotator(self.paths)
        if engine:
            serving = serving_file(self.paths.checkout)
            if serving.exists():  # a race's settings; whoever starts an engine by hand gets the stack's own
                host.stop_all()
                serving.unlink()
            say(f"{engine}: starting (port {dict(self.settings.ports())[f'BAKEOFF_{engine.upper()}_PORT']})")
            began = time.monotonic()
            host.start(engine, on_progress=lambda text: say(f"  {text}"))
            say(f"{engine}: healthy after {time.monotonic() - began:.0f} s")
        return lacking

    def _need_grafana_password(self) -> None:
        """Have a password for Grafana in `.env`, which is written where there is none. Raises UserError."""
        env_file = self.paths.checkout / ".env"
        if write_env_file(env_file):
            say(f"wrote {env_file.name} with a password for Grafana")
            self.settings = load_settings(self.paths.checkout)
        need_password(self.settings.grafana_password, env_file)

    def _find_prometheus(self) -> list[str]:
        """Fetch Prometheus where there is none and it can be; the line to show if there is none in the end."""
        if find_prometheus(self.settings, self.paths):
            return []
        why = fetch_prometheus(self.paths)
        if why is None:
            return []
        return [f"Prometheus is not here: nothing is recorded over time, reports lack engine memory. {why}"]

    def _key_running(self) -> str:
        return str(json.loads(stack_file(self.paths.checkout).read_text(encoding="utf-8")).get("key", ""))

    def _start_supervisor(self, stack: Sequence[Program]) -> None:
        """Write all configuration and start supervisord, which starts nothing by itself."""
        if left := strays.ours(self.paths.state):
            say(f"ending {len(left)} processes left over from an earlier stack")
            strays.end(left)
        self._check_ports(stack)
        private_folder(self.paths.stack)
        private_folder(self.paths.socket.parent)
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        if any(program.name == "grafana" for program in stack):
            self._write_grafana_files()
        self.paths.prometheus_config.parent.mkdir(exist_ok=True)
        write_prometheus_files(self.paths.prometheus_config.parent, render_prometheus(self.settings, self.paths))
        self.paths.supervisor_config.write_text(render_supervisor(stack, self.paths), encoding="utf-8")
        for path in (self.paths.socket, self.paths.supervisor_pid):
            path.unlink(missing_ok=True)
        stack_file(self.paths.checkout).write_text(json.dumps(self._describe(stack), indent=2), encoding="utf-8")

        command = [main_python(self.paths.checkout), "-m", "supervisor.supervisord"]
        command += ["-c", str(self.paths.supervisor_config)]
        environment = {**os.environ, **stack_environment(self.settings, self.paths)}
        result = subprocess.run(
            command, cwd=self.paths.checkout, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        limit = time.monotonic() + 15
        while result.returncode == 0 and time.monotonic() < limit:
            if self.host():
                return
            time.sleep(0.1)
        said = (result.stderr or result.stdout).strip() or tail(self.paths.supervisor_log, 10)
        raise UserError(f"supervisord did not start:\n{said}")

    def _write_grafana_files(self) -> None:
        """Write them for this user's eyes only: one holds the password."""
        for name, text in render_grafana(self.settings, self.paths).items():
            path = self.paths.grafana / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.chmod(0o600)
            path.write_text(text, encoding="utf-8")

    def _describe(self, stack: Sequence[Program]) -> dict[str, Any]:
        """What stack.json holds; loadgen.hosts.stack_file reads it."""
        return {
            "key": stack_key(stack, self.settings, self.paths),
            "socket": str(self.paths.socket),
            "urls": {program.name: program.url for program in stack if program.url and not program.engine},
            "engines": {
                engine: {
                    "kind": engine,
                    "base_url": engine_url(self.settings, engine),
                    "health_url": f"{engine_url(self.settings, engine)}/health",
                    "model": SERVED_NAME,
                    "api": "completions",
                    "log": str(self.paths.log(engine)),
                    "launch_record": str(self.paths.launch_record(engine)),
                    "start_limit_s": self.settings.engine_start_limit_s,
                }
                for engine in engines_here()
            },
        }

    def _check_ports(self, stack: Sequence[Program]) -> None:
        """Raise UserError naming every port of the stack that is taken, by whom, and the variable that changes it."""
        taken = [
            f"  {port} for {program.name}: held by {strays.name_of(strays.port_holder(port))}; "
            f"end that, or set {variable} to a free port in .env"
            for program in stack
            for variable, port in program.ports
            if not strays.port_is_free(port)
        ]
        if taken:
            raise UserError("\n".join(["these ports are in use:", *taken]))

    def _start_services(self, host: SupervisorHost, stack: Sequence[Program]) -> list[str]:
        """Start all but the engines and wait until each is ready. Returns what failed and is not essential."""
        services = [program for program in stack if not program.engine]
        for program in services:
            if host.state_of(program.name)["state"] not in ALIVE:
                say(f"{program.name}: starting")
                host.start_program(program.name)
        failures: list[str] = []
        for program in services:
            if problem := self._wait_until_ready(host, program):
                quoted = "\n".join(f"  | {line}" for line in tail(program.log, 8).splitlines())
                text = f"{program.name} failed ({problem}): {program.without_it}.\n"
                text += f"The last lines of {program.log}:\n{quoted}"
                if program.essential:
                    raise UserError(f"{text}\nThe rest was left running: `make ps` shows it, `make down` ends it.")
                failures.append(text)
        return failures

    def _wait_until_ready(self, host: SupervisorHost, program: Program) -> str | None:
        """Wait for a service; None once it is ready, else what is wrong with it."""
        began = said = time.monotonic()
        while True:
            state = host.state_of(program.name)
            if program.ready_url:
                ready = state["state"] in (STARTING, RUNNING) and http_status(program.ready_url) == 200
            else:
                ready = state["state"] == RUNNING
            if ready:
                return None
            if state["state"] not in ALIVE:
                return "it ends as soon as it starts"
            now = time.monotonic()
            if now - began > READY_LIMIT_S:
                return f"it was not ready within {READY_LIMIT_S} s"
            if now - said > 5:
                said = now
                say(f"  waiting for {program.name}: {now - began:.0f} s")
            time.sleep(0.2)

    def down(self) -> None:
        """End every process of this checkout, also when supervisord was killed. Raises UserError if one survives."""
        host = self.host()
        count = len(strays.ours(self.paths.state))
        if host:
            say("stopping the stack")
            with contextlib.suppress(UserError):
                host.shutdown()
            limit = time.monotonic() + 60
            while strays.ours(self.paths.state) and time.monotonic() < limit and self._supervisor_lives():
                time.sleep(0.2)
        left = strays.ours(self.paths.state)
        if left and not host:
            say(f"supervisord is gone: ending {len(left)} processes it left behind")
        survivors = strays.end(left)
        for path in (self.paths.socket, self.paths.supervisor_pid, stack_file(self.paths.checkout)):
            path.unlink(missing_ok=True)
        if self.paths.socket.parent != self.paths.stack:
            with contextlib.suppress(OSError):
                self.paths.socket.parent.rmdir()
        if survivors:
            names = ", ".join(strays.name_of(process) for process in survivors)
            raise UserError(f"these do not end even when killed: {names}")
        say("nothing was running" if count == 0 else "the stack is down: no process left, all ports free")

    def _supervisor_lives(self) -> bool:
        """Whether supervisord, which ends its programs in turn, is still at it."""
        try:
            os.kill(int(self.paths.supervisor_pid.read_text(encoding="utf-8")), 0)
        except (OSError, ValueError):
            return False
        return True

    def states(self) -> list[dict[str, Any]]:
        """Each program's name, state, pid, uptime in seconds and URL. Raises UserError if the stack does not run."""
        host = self.host()
        if host is None:
            left = strays.ours(self.paths.state)
            more = f" ({len(left)} processes of an earlier one are left: `make down` ends them)" if left else ""
            raise UserError(f"the stack does not run{more}: start it with `make up`", exit_code=1)
        rows = []
        for program in self.programs():
            state = host.state_of(program.name)
            alive = state["state"] in ALIVE
            word = str(state["statename"]).lower()
            if state["state"] in (STARTING, RUNNING) and program.ready_url:
                word = "ready" if http_status(program.ready_url, timeout_s=1) == 200 else "starting"
            rows.append(
                {
                    "name": program.name,
                    "state": word,
                    "pid": state["pid"] if alive else None,
                    "uptime_s": max(0, state["now"] - state["start"]) if alive else None,
                    "url": program.url,
                }
            )
        return rows
