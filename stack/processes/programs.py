"""What the stack of plain processes consists of: its programs, and the files they read. Pure functions of settings."""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.distributed.secret import FILE_VARIABLE as SECRET_FILE_VARIABLE
from loadgen.endpoints.from_file import VARIABLE as ALLOW_VARIABLE
from loadgen.endpoints.seats import ENGINES_VARIABLE, Seat, seats_json
from loadgen.errors import UserError
from loadgen.hosts.http_probe import http_status
from loadgen.hosts.stack_file import HostedEngine, SupervisorStack, serving_file
from loadgen.machine import format_cpus
from loadgen.settings import Paths, Settings, main_python
from stack.cpus import CpuPlan
from stack.engines.launching import SERVING_VARIABLE
from stack.gpu import known_gpus
from stack.processes.binaries import Grafana
from stack.processes.grafana_config import grafana_environment
from stack.processes.lineup import LOCAL, StackEngine, cards_of, command, lineup, on_gpu, pushes_metrics, start_limit_s
from stack.processes.strays import MARK
from stack.scrape_config import LOOKBACK, prometheus_files, render_template


@dataclass(frozen=True)
class Program:
    """One process under supervisor. `ports` are those it listens on, by the variable that changes each."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ports: tuple[tuple[str, int], ...] = ()
    url: str = ""
    ready_url: str = ""
    engine: bool = False
    temp: Path | None = None
    """Its own folder for temporary files."""

    @property
    def command(self) -> str:
        """The command line as supervisor's configuration wants it."""
        return shlex.join(self.argv).replace("%", "%%")

    @property
    def log_file(self) -> str:
        """The log's path as supervisor's configuration wants it: this option alone is expanded twice."""
        return _escaped(self.log).replace("%", "%%")

    @property
    def variables(self) -> str:
        """Variables of its own, as supervisor's configuration wants them; empty where there are none."""
        return f"TMPDIR={_quoted(self.temp)}" if self.temp else ""

    def answers(self) -> bool:
        """Whether it answers where it says that it is ready; true for one that serves nothing."""
        return not self.ready_url or http_status(self.ready_url, timeout_s=1) == 200


def programs(
    settings: Settings, paths: Paths, cpus: CpuPlan, prometheus: Path | None, grafana: Grafana | None
) -> list[Program]:
    """All programs of the stack, in the order of their start; the engines, of which one serves at a time, come last."""
    python = main_python(paths.checkout)
    locust = (python, "-m", "locust", "-f", str(paths.checkout / "loadgen" / "locustfile.py"))
    found: list[Program] = []
    engines = lineup(settings)

    def add(name: str, argv: Sequence[str], *variables: str, path: str = "", ready: str = "") -> None:
        """Add a program on the cores of traffic; it serves `path` on the first variable's port, if there is one."""
        ports = settings.ports()
        url = f"{LOCAL}:{ports[variables[0]]}" if variables else ""
        pinned = (python, "-m", "stack.cpus", format_cpus(cpus.traffic), *argv)
        by_variable = tuple((variable, ports[variable]) for variable in variables)
        found.append(Program(name, pinned, paths.log(name), by_variable, url and url + path, url and url + ready))

    master = ("--master-bind-host", "127.0.0.1", "--master-bind-port", str(settings.locust_master_port))
    web = ("--web-host", "127.0.0.1", "--web-port", str(settings.locust_port))
    variables = ("BAKEOFF_LOCUST_PORT", "BAKEOFF_LOCUST_MASTER_PORT")
    add("locust-master", (*locust, "--master", *web, *master), *variables, ready="/")
    for number in range(1, settings.workers + 1):
        to_master = ("--master-host", "127.0.0.1", "--master-port", str(settings.locust_master_port))
        add(f"locust-worker-{number}", (*locust, "--worker", *to_master))
    exporter = [python, "-m", "exporters.engine", "--host", "127.0.0.1", "--port", str(settings.engine_exporter_port)]
    for engine in engines:
        exporter += ["--engine", f"{engine.name}={engine.url}"]
    add("engine-exporter", exporter, "BAKEOFF_ENGINE_EXPORTER_PORT", path="/metrics", ready="/metrics")
    if on_gpu(settings):
        port = ("--host", "127.0.0.1", "--port", str(settings.gpu_exporter_port))
        exporter = [python, "-m", "exporters.gpu", *port, "--launch-records", str(paths.stack)]
        add("gpu-exporter", exporter, "BAKEOFF_GPU_EXPORTER_PORT", path="/metrics", ready="/healthz")
    if pushes_metrics(engines):
        port = ("--host", "127.0.0.1", "--port", str(settings.ksana_exporter_port))
        exporter = [python, "-m", "exporters.ksana", *port]
        add("ksana-exporter", exporter, "BAKEOFF_KSANA_EXPORTER_PORT", path="/metrics", ready="/healthz")
    if prometheus:
        add("prometheus", _prometheus(settings, paths, prometheus), "BAKEOFF_PROMETHEUS_PORT", ready="/-/ready")
    if grafana:
        # `grafana` has a subcommand, `grafana-server` (its older name) has none.
        start = (str(grafana.binary), *(("server",) if grafana.binary.name == "grafana" else ()))
        options = ("--homepath", str(grafana.home), "--config", str(paths.grafana_config))
        add("grafana", (*start, *options), "BAKEOFF_GRAFANA_PORT", ready="/api/health")
    return [*found, *(_engine(settings, paths, cpus, engine) for engine in engines)]


def _prometheus(settings: Settings, paths: Paths, binary: Path) -> tuple[str, ...]:
    return (
        str(binary),
        f"--config.file={paths.prometheus_config}",
        f"--storage.tsdb.path={paths.state / 'prometheus'}",
        "--storage.tsdb.retention.time=15d",
        "--storage.tsdb.retention.size=2GB",
        LOOKBACK,
        f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
        r"--web.cors.origin=https?://(127\.0\.0\.1|localhost)(:[0-9]+)?",
    )


def _engine(settings: Settings, paths: Paths, cpus: CpuPlan, engine: StackEngine) -> Program:
    argv = command(engine, settings, paths, cpus)
    ports = ((engine.variable, engine.port),)
    return Program(
        *(engine.name, argv, paths.log(engine.name), ports, engine.url, engine.health_url),
        engine=True,
        temp=paths.temp(engine.name),
    )


def describe(stack: Sequence[Program], settings: Settings, paths: Paths) -> SupervisorStack:
    """What races and hosts have to know of the stack."""
    return SupervisorStack(
        key=stack_key(stack, settings, paths),
        profile=settings.profile or "cpu",
        socket=paths.socket,
        urls={program.name: program.url for program in stack if program.url and not program.engine},
        engines={
            each.name: HostedEngine(
                **each.seat.model_dump(exclude_none=True),
                health_url=each.health_url,
                log=paths.log(each.name),
                launch_record=paths.launch_record(each.name),
                temp=paths.temp(each.name),
                start_limit_s=start_limit_s(settings),
                port_variable=each.variable,
                cards=cards_of(each),
                model_dir=settings.model_dir and str(paths.checkout / settings.model_dir) if each.gpus else "",
            )
            for each in lineup(settings)
        },
        gpus=list(known_gpus()) if on_gpu(settings) else [],
    )


def seats(settings: Settings) -> list[Seat]:
    """The seats that Locust's form offers and races take."""
    return [engine.seat for engine in lineup(settings)]


def stack_environment(settings: Settings, paths: Paths) -> dict[str, str]:
    """What every process of the stack inherits beside the user's own environment."""
    return {
        MARK: str(paths.state),
        "PYTHONUNBUFFERED": "1",
        # Traffic on this machine never goes through a proxy.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "BAKEOFF_RUNS_DIR": str(paths.checkout / settings.runs_dir),
        ENGINES_VARIABLE: seats_json(seats(settings)),
        **({ALLOW_VARIABLE: settings.allow_env} if settings.allow_env else {}),
        SERVING_VARIABLE: str(serving_file(paths.checkout)),
        SECRET_FILE_VARIABLE: str(paths.checkout / (settings.traffic_secret_file or paths.traffic_secret)),
        **grafana_environment(settings, paths),
    }


def render_supervisor(stack: Sequence[Program], paths: Paths) -> str:
    """Supervisor's configuration."""
    for mark in (" ;", " #", "\n"):
        if mark in str(paths.checkout):
            raise UserError(
                f"supervisor cannot work below {paths.checkout}: its name holds {mark!r}; rename the folder"
            )
    return render_template(
        Path(__file__).with_name("supervisord.conf.j2"),
        programs=stack,
        checkout=_escaped(paths.checkout),
        socket=_escaped(paths.socket),
        logs=_escaped(paths.logs),
        supervisor_log=_escaped(paths.supervisor_log),
        supervisor_pid=_escaped(paths.supervisor_pid),
        # Said outright, or supervisord warns that it runs as root.
        user=pwd.getpwuid(0).pw_name if os.getuid() == 0 else "",
    )


def render_prometheus(settings: Settings, paths: Paths) -> dict[str, str]:
    """Prometheus' configuration: the text of each file by its name."""
    return prometheus_files(
        paths.checkout,
        seats(settings),
        client=f"127.0.0.1:{settings.locust_port}",
        engine_exporter=f"127.0.0.1:{settings.engine_exporter_port}",
        gpu_exporter=f"127.0.0.1:{settings.gpu_exporter_port}" if on_gpu(settings) else None,
        ksana_exporter=f"127.0.0.1:{settings.ksana_exporter_port}" if pushes_metrics(lineup(settings)) else None,
        prometheus=f"127.0.0.1:{settings.prometheus_port}",
    )


def stack_key(stack: Sequence[Program], settings: Settings, paths: Paths) -> str:
    """Changes whenever a running stack is no longer what the settings ask for."""
    environment = sorted(stack_environment(settings, paths).items())
    text = f"{render_supervisor(stack, paths)}{render_prometheus(settings, paths)}{environment}"
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(path: Path) -> str:
    """A variable's value: read as a shell would, after % is expanded."""
    return shlex.quote(_escaped(path)) if "'" in str(path) else f'"{_escaped(path)}"'


def _escaped(path: Path) -> str:
    """Supervisor expands % in values."""
    return str(path).replace("%", "%%")
