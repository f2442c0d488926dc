"""The stack as plain processes: supervisord and its programs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from loadgen.distributed.secret import make_secret_file
from loadgen.errors import UserError
from loadgen.files import atomic_write, tail
from loadgen.hosts.base import quoted
from loadgen.hosts.placement import declare_places
from loadgen.hosts.remains import clear, shared_memory, sweep
from loadgen.hosts.stack_file import DockerStack, declare_serving, read_stack, stack_file, write_stack
from loadgen.hosts.supervisor import ALIVE, RUNNING, STARTING, SupervisorHost
from loadgen.settings import Paths, Settings, load_settings_leniently, main_python, private_folder
from stack import setup
from stack.before import RUN_DISK_GB
from stack.commands import need_disk, say
from stack.cpus import available_cpus, plan_cpus
from stack.env_file import settings_with_password
from stack.gpu import check_gpu_model
from stack.processes import strays
from stack.processes.binaries import fetch_prometheus, find_grafana, find_prometheus
from stack.processes.grafana_config import render_grafana
from stack.processes.lineup import StackEngine, ksana_server, lineup, on_gpu, unavailable
from stack.processes.ports import check_ports, free_ports, with_ports
from stack.processes.programs import (
    Program,
    describe,
    programs,
    render_prometheus,
    render_supervisor,
    stack_environment,
    stack_key,
)
from stack.runtime import NO_ENGINE, TAKEN, WITHOUT, State
from stack.scrape_config import write_prometheus_files

READY_LIMIT_S = 180
INSTEAD = "; or PROFILE=cpu for CPU engines and a model of their own"


class ProcessRuntime:
    """The plain processes of one checkout."""

    def __init__(self, checkout: Path, settings: Settings | None = None, *, profile: str = "") -> None:
        """`settings` stand in for those of the checkout; `profile` is gpu or cpu, empty: that of what is up."""
        self.paths = Paths(checkout)
        self._given, self._profile = settings, profile

    @cached_property
    def settings(self) -> Settings:
        """The settings, or the defaults where they are wrong: `up` has refused those before."""
        return self._with_profile(self._given or load_settings_leniently(self.paths.checkout))

    def _with_profile(self, settings: Settings) -> Settings:
        profile = self._profile
        if not profile:
            with contextlib.suppress(UserError):
                profile = read_stack(self.paths.checkout).profile
        return settings.model_copy(update={"profile": "gpu" if profile == "gpu" else "cpu"})

    def programs(self) -> list[Program]:
        """The programs this machine can run with these settings."""
        return self._programs(find_prometheus(self.settings, self.paths))

    def _programs(self, prometheus: Path | None) -> list[Program]:
        # GPU engines leave most cores idle: a core for each worker, and one for Locust's master and monitoring.
        cpus = plan_cpus(available_cpus(), traffic=self.settings.workers + 1 if on_gpu(self.settings) else 1)
        return programs(self.settings, self.paths, cpus, prometheus, find_grafana(self.settings))

    def can_set_up(self) -> Sequence[str]:
        """The engines of the profile; what makes one ready makes its twin."""
        return [engine.name for engine in lineup(self.settings) if engine.twin_of is None]

    def setup(self, engines: Sequence[str], *, verify: bool = False) -> None:
        """Make or find the engines' environments and the model."""
        if not on_gpu(self.settings):
            setup.check_disk(self.paths, engines or [name for name in setup.ENGINES if setup.supported(name) is None])
            for reason in unavailable(self.settings).values() if not engines else ():
                say(reason)
        for name in engines or self.can_set_up():
            self._ensure(name, verify=verify)
            say(f"{name}: ready")

    def _ensure(self, name: str, *, verify: bool = False) -> None:
        """Make or find all that an engine needs to start. Raises UserError if this machine cannot run it."""
        engines = {engine.name: engine for engine in lineup(self.settings)}
        if on_gpu(self.settings) and name in engines:
            self._check_gpu_engine(engines[name])
            if not engines[name].own:
                setup.ensure_gpu_engine(self.settings, self.paths, engines[name].program)
        elif name not in engines or not engines[name].own:
            # By name the CPU engines can be made ready whatever the profile is: tests take one.
            if on_gpu(self.settings) and name not in setup.ENGINES:
                hint = unavailable(self.settings).get(name)
                raise UserError(
                    f"unknown engine {name}: there are {', '.join(engines)}" + (f" ({hint})" if hint else "")
                )
            setup.ensure_engine(self.paths, engines[name].program if name in engines else name, verify=verify)

    def _check_gpu_engine(self, engine: StackEngine) -> None:
        """What is named has to be there. Raises UserError."""
        if engine.own:
            return
        check_gpu_model(self.settings, engine.program, self.paths.checkout, INSTEAD)
        if engine.program == "ksana":
            folder = ksana_server(self.settings, self.paths.checkout)
            if not (folder / "serving_server.py").is_file():
                raise UserError(
                    f"BAKEOFF_KSANA_HOME={self.settings.ksana_home}: there is no serving_server.py in {folder}: name "
                    "KsanaLLM's checkout, built as its README says"
                )

    def host(self) -> SupervisorHost:
        """The engine host of the running stack."""
        return SupervisorHost.of_checkout(self.paths.checkout)

    def _running(self) -> SupervisorHost | None:
        with contextlib.suppress(UserError):
            return self.host()
        return None

    def check(self, *, new: bool = False, move_ports: bool = False) -> None:
        """Look at disk, write access and ports, and with `new` that nothing runs yet. Raises UserError."""
        need_disk(self.paths.state, RUN_DISK_GB, "running the stack")
        if new and (ours := strays.ours(self.paths.state)):
            first = min(ours, key=lambda process: process.create_time())
            since = time.strftime("%H:%M", time.localtime(first.create_time()))
            raise UserError(
                f"this checkout's stack is up since {since} (process {first.pid}), and is left alone: `make ps` shows "
                "it, `make down` ends it. Then try again",
                exit_code=TAKEN,
            )
        if not move_ports and self._running() is None:
            stack = self._programs(find_prometheus(self.settings, self.paths) or Path("prometheus"))
            check_ports(stack, self.paths.state)

    def up(self, engine: str, serving: str | None, *, new: bool = False, move_ports: bool = False) -> list[str]:
        """Start what does not run yet, and one engine."""
        engines = lineup(self.settings)
        for each in engines if on_gpu(self.settings) else ():
            self._check_gpu_engine(each)
        self.check(new=new, move_ports=move_ports)
        name = "" if engine == NO_ENGINE else engine or engines[0].name
        if name:
            self._ensure(name)
        lacking = self._find_prometheus()
        host = self._running()
        moved = host.stack.moved_ports if host else self._move_ports() if move_ports else {}
        self.settings = with_ports(self.settings, moved)
        stack = self.programs()
        has_grafana = any(program.name == "grafana" for program in stack)
        if has_grafana:
            self.settings = with_ports(self._with_profile(settings_with_password(self.paths.checkout)), moved)
        else:
            without = WITHOUT["grafana"]
            lacking.append(f"Grafana is not here (put `grafana` on PATH or set GRAFANA_BIN): {without}.")
        if host is None:
            self._start_supervisor(stack, moved)
            host = self.host()
        elif host.stack.key != stack_key(stack, self.settings, self.paths):
            raise UserError("the stack runs with other settings than those asked for now: run `make down` first")
        lacking += self._start_services(host, stack)
        if has_grafana:
            lacking += setup.ensure_annotator(self.paths)
        declare_places(self.paths.checkout, {}, host)
        if serving is not None:
            declare_serving(self.paths.checkout, serving, host)
        if name:
            say(f"{name}: starting ({host.stack.engines[name].base_url})")
            began = time.monotonic()
            host.start(name, on_progress=lambda text: say(f"  {text}"))
            say(f"{name}: healthy after {time.monotonic() - began:.0f} s")
        return lacking

    def _find_prometheus(self) -> list[str]:
        """Fetch Prometheus where there is none and it can be; the line to show if there is none in the end."""
        if find_prometheus(self.settings, self.paths) or (why := fetch_prometheus(self.paths)) is None:
            return []
        return [f"Prometheus is not here: {WITHOUT['prometheus']}. {why}"]

    def _move_ports(self) -> dict[str, int]:
        """Choose free ports in place of those that are taken, and say which; by variable."""
        strays.end(strays.ours(self.paths.state))
        stack = self.programs()
        moved = free_ports(self.settings, stack)
        for program in stack:
            for variable, port in program.ports:
                if variable in moved:
                    who = strays.name_of(strays.port_holder(port))
                    say(f"{program.name}: port {port} is held by {who}, so it takes {moved[variable]}")
        return moved

    def _start_supervisor(self, stack: Sequence[Program], moved: dict[str, int]) -> None:
        """Write all configuration and start supervisord, which starts nothing by itself."""
        paths = self.paths
        if left := strays.ours(paths.state):
            say(f"ending {len(left)} processes left over from an earlier stack")
            strays.end(left)
        check_ports(stack)
        private_folder(paths.stack)
        for folder in {paths.socket.parent, *(program.temp.parent for program in stack if program.temp)}:
            private_folder(folder)
        paths.logs.mkdir(parents=True, exist_ok=True)
        make_secret_file(paths.checkout / (self.settings.traffic_secret_file or paths.traffic_secret))
        if any(program.name == "grafana" for program in stack):
            self._write_grafana_files()
        write_prometheus_files(paths.prometheus_config.parent, render_prometheus(self.settings, paths))
        atomic_write(paths.supervisor_config, render_supervisor(stack, paths))
        for path in (paths.socket, paths.supervisor_pid):
            path.unlink(missing_ok=True)
        described = describe(stack, self.settings, paths)
        write_stack(paths.checkout, described.model_copy(update={"moved_ports": moved}))

        command = [main_python(paths.checkout), "-m", "supervisor.supervisord", "-c", str(paths.supervisor_config)]
        environment = {**os.environ, **stack_environment(self.settings, paths)}
        result = subprocess.run(
            command, cwd=paths.checkout, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        limit = time.monotonic() + 15
        while result.returncode == 0 and time.monotonic() < limit:
            if self._running():
                return
            time.sleep(0.1)
        said = (result.stderr or result.stdout).strip() or tail(paths.supervisor_log, 10)
        raise UserError(f"supervisord did not start:\n{said}")

    def _write_grafana_files(self) -> None:
        """Write them for this user's eyes only: one holds the password."""
        for name, text in render_grafana(self.settings, self.paths).items():
            path = self.paths.grafana / name
            private_folder(path.parent)
            atomic_write(path, text, mode=0o600)

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
                without = WITHOUT.get(program.name, "no traffic can be made")
                text = f"{program.name} failed ({problem}): {without}.\n"
                text += f"The last lines of {program.log}:\n{quoted(tail(program.log, 8))}"
                if program.name not in WITHOUT:
                    raise UserError(f"{text}\nThe rest was left running: `make ps` shows it, `make down` ends it.")
                failures.append(text)
        return failures

    def _wait_until_ready(self, host: SupervisorHost, program: Program) -> str | None:
        """Wait for a service; None once it is ready, else what is wrong with it."""
        began = said = time.monotonic()
        while True:
            state = host.state_of(program.name)["state"]
            if (state == RUNNING or (state == STARTING and program.url)) and program.answers():
                return None
            if state not in ALIVE:
                return "it ends as soon as it starts"
            now = time.monotonic()
            if now - began > READY_LIMIT_S:
                return f"it was not ready within {READY_LIMIT_S} s"
            if now - said > 5:
                said = now
                say(f"  waiting for {program.name}: {now - began:.0f} s")
            time.sleep(0.2)

    def down(self, *, volumes: bool = False) -> None:
        """End every process of this checkout, also when supervisord was killed; there are no volumes."""
        paths = self.paths
        host = self._running()
        running = strays.ours(paths.state)
        count, held = len(running), shared_memory(running)
        if host:
            say("stopping the stack")
            with contextlib.suppress(UserError):
                host.shutdown()
            limit = time.monotonic() + 60
            while strays.ours(paths.state) and time.monotonic() < limit and self._supervisor_lives():
                time.sleep(0.2)
        left = strays.ours(paths.state)
        if left and not host:
            say(f"supervisord is gone: ending {len(left)} processes it left behind")
        survivors = strays.end(left)
        sweep(held)
        for engine in {*setup.ENGINES, *(host.stack.engines if host else ())}:
            clear(paths.temp(engine))
        for path in (paths.socket, paths.supervisor_pid):
            path.unlink(missing_ok=True)
        if not self._containers_are_up():
            stack_file(paths.checkout).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            paths.short.rmdir()
        if survivors:
            names = ", ".join(strays.name_of(process) for process in survivors)
            raise UserError(f"these do not end even when killed: {names}")
        say("nothing was running" if count == 0 else "the stack is down: no process left, all ports free")

    def _containers_are_up(self) -> bool:
        with contextlib.suppress(UserError):
            return isinstance(read_stack(self.paths.checkout), DockerStack)
        return False

    def _supervisor_lives(self) -> bool:
        """Whether supervisord, which ends its programs in turn, is still at it."""
        try:
            os.kill(int(self.paths.supervisor_pid.read_text(encoding="utf-8")), 0)
        except (OSError, ValueError):
            return False
        return True

    def states(self) -> list[State]:
        """Every program, and the engines that this machine cannot run."""
        host = self._running()
        if host is None:
            left = strays.ours(self.paths.state)
            more = f" ({len(left)} processes of an earlier one are left: `make down` ends them)" if left else ""
            raise UserError(f"the stack does not run{more}: start it with `make up`", exit_code=1)
        self.settings = with_ports(self.settings, host.stack.moved_ports)
        found, gpus = [], self._gpus(host)
        for program in self.programs():
            state = host.state_of(program.name)
            alive, word = state["state"] in ALIVE, str(state["statename"]).lower()
            if state["state"] in (STARTING, RUNNING) and program.url:
                word = "ready" if program.answers() else "starting"
            up_s = max(0, state["now"] - state["start"]) if alive else None
            urls = (program.url,) if program.url else ()
            cards = gpus.get(program.name, "")
            found.append(State(program.name, word, str(state["pid"]) if alive else "", up_s, urls, cards))
        known = [program.name for program in found]
        missing = unavailable(self.settings).items()
        return [*found, *(State(name, f"not here: {why}", "", None, ()) for name, why in missing if name not in known)]

    def _gpus(self, host: SupervisorHost) -> dict[str, str]:
        """The GPUs of each engine: of its latest start where it runs, else those that it is given."""
        found = {engine.name: engine.gpus for engine in lineup(self.settings)}
        for name in host.running():
            given = host.describe(name).get("gpus")
            if isinstance(given, dict) and given.get("device_ids"):
                found[name] = ",".join(given["device_ids"])
        return found

    def logs(self, name: str, lines: int, *, follow: bool) -> NoReturn:
        """Show a program's log with `tail`."""
        known = sorted(path.stem for path in self.paths.logs.glob("*.log"))
        if name not in known:
            raise UserError(f"no log of {name!r}: there are {', '.join(known) or 'none yet (run `make up`)'}")
        command = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(self.paths.log(name))]
        os.execvp(command[0], command)  # noqa: S606
