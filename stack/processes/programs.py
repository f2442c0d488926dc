"""What the stack consists of: its programs, and the configuration files they read. Pure functions of the settings."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from loadgen.errors import UserError
from loadgen.hosts.stack_file import serving_file
from loadgen.settings import Paths, Settings, main_python
from stack.cpus import CpuPlan, format_cpus
from stack.model import SERVED_NAME, stamp_path
from stack.processes.binaries import Grafana
from stack.processes.grafana_config import grafana_environment
from stack.processes.strays import MARK
from stack.scrape_config import LOOKBACK, Target, prometheus_files, render_scrape_config
from stack.setup import ENGINES, supported

LOCAL = "http://127.0.0.1"


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
    essential: bool = False
    without_it: str = ""
    stop_signal: str = "TERM"
    stop_wait_s: int = 20

    @property
    def command(self) -> str:
        """The command line as supervisor's configuration wants it."""
        return shlex.join(self.argv).replace("%", "%%")

    @property
    def log_file(self) -> str:
        """The log's path as supervisor's configuration wants it: this option alone is expanded twice."""
        return _escaped(self.log).replace("%", "%%")


def engine_port(settings: Settings, engine: str) -> int:
    """The port of an engine."""
    return int(getattr(settings, f"{engine}_port"))


def engine_url(settings: Settings, engine: str) -> str:
    """The base URL of an engine."""
    return f"{LOCAL}:{engine_port(settings, engine)}"


def engines_here() -> tuple[str, ...]:
    """The engines that this machine can run."""
    return tuple(engine for engine in ENGINES if supported(engine) is None)


def programs(
    settings: Settings, paths: Paths, cpus: CpuPlan, prometheus: Path | None, grafana: Grafana | None
) -> list[Program]:
    """All programs of the stack, in the order of their start; the engines, of which one serves at a time, come last."""
    python = main_python(paths.checkout)
    on_traffic_cpus = (python, "-m", "stack.cpus", format_cpus(cpus.traffic))
    locust = (python, "-m", "locust", "-f", str(paths.checkout / "loadgen" / "locustfile.py"))
    found = [
        Program(
            name="locust-master",
            argv=(
                *on_traffic_cpus,
                *locust,
                "--master",
                *("--web-host", "127.0.0.1", "--web-port", str(settings.locust_port)),
                *("--master-bind-host", "127.0.0.1", "--master-bind-port", str(settings.locust_master_port)),
            ),
            log=paths.log("locust-master"),
            ports=(
                ("BAKEOFF_LOCUST_PORT", settings.locust_port),
                ("BAKEOFF_LOCUST_MASTER_PORT", settings.locust_master_port),
            ),
            url=f"{LOCAL}:{settings.locust_port}",
            ready_url=f"{LOCAL}:{settings.locust_port}/",
            essential=True,
            without_it="no traffic can be made",
        )
    ]
    found += [
        Program(
            name=f"locust-worker-{number}",
            argv=(
                *on_traffic_cpus,
                *locust,
                "--worker",
                *("--master-host", "127.0.0.1", "--master-port", str(settings.locust_master_port)),
            ),
            log=paths.log(f"locust-worker-{number}"),
            essential=True,
            without_it="no traffic can be made",
        )
        for number in range(1, settings.workers + 1)
    ]
    exporter = [*on_traffic_cpus, python, "-m", "exporters.engine", "--host", "127.0.0.1"]
    exporter += ["--port", str(settings.engine_exporter_port)]
    for engine in engines_here():
        exporter += ["--engine", f"{engine}={engine_url(settings, engine)}"]
    found.append(
        Program(
            name="engine-exporter",
            argv=tuple(exporter),
            log=paths.log("engine-exporter"),
            ports=(("BAKEOFF_ENGINE_EXPORTER_PORT", settings.engine_exporter_port),),
            url=f"{LOCAL}:{settings.engine_exporter_port}/metrics",
            ready_url=f"{LOCAL}:{settings.engine_exporter_port}/metrics",
            without_it="engine memory and CPU are not recorded",
        )
    )
    if prometheus:
        found.append(_prometheus(settings, paths, on_traffic_cpus, prometheus))
    if grafana:
        found.append(
            Program(
                name="grafana",
                argv=(*on_traffic_cpus, str(grafana.binary), *_grafana_arguments(paths, grafana)),
                log=paths.log("grafana"),
                ports=(("BAKEOFF_GRAFANA_PORT", settings.grafana_port),),
                url=f"{LOCAL}:{settings.grafana_port}",
                ready_url=f"{LOCAL}:{settings.grafana_port}/api/health",
                without_it="there are no live dashboards; `make dashboards` prints them as a page",
            )
        )
    found += [_engine(settings, paths, cpus, engine) for engine in engines_here()]
    return found


def _prometheus(settings: Settings, paths: Paths, prefix: Sequence[str], binary: Path) -> Program:
    return Program(
        name="prometheus",
        argv=(
            *prefix,
            str(binary),
            f"--config.file={paths.prometheus_config}",
            f"--storage.tsdb.path={paths.state / 'prometheus'}",
            "--storage.tsdb.retention.time=15d",
            "--storage.tsdb.retention.size=2GB",
            LOOKBACK,
            f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
            r"--web.cors.origin=https?://(127\.0\.0\.1|localhost)(:[0-9]+)?",
        ),
        log=paths.log("prometheus"),
        ports=(("BAKEOFF_PROMETHEUS_PORT", settings.prometheus_port),),
        url=f"{LOCAL}:{settings.prometheus_port}",
        ready_url=f"{LOCAL}:{settings.prometheus_port}/-/ready",
        without_it="nothing is recorded over time, and reports come without engine memory",
    )


def _grafana_arguments(paths: Paths, grafana: Grafana) -> tuple[str, ...]:
    """`grafana` has a subcommand, `grafana-server` (its older name) has none."""
    start = ("server",) if grafana.binary.name == "grafana" else ()
    return (*start, "--homepath", str(grafana.home), "--config", str(paths.grafana_config))


def _engine(settings: Settings, paths: Paths, cpus: CpuPlan, engine: str) -> Program:
    """Both engines get the same cores, context and number of sequences."""
    weights = paths.hf_model if engine == "vllm" else paths.gguf
    argv = [
        *(str(paths.engine_python(engine)), "-m", f"stack.engines.{engine}.serve"),
        *("--model", str(weights)),
        *("--model-stamp", str(stamp_path(weights))),
        *("--served-name", SERVED_NAME),
        *("--port", str(engine_port(settings, engine))),
        *("--cpus", format_cpus(cpus.engine)),
        *("--context-tokens", str(settings.context_tokens)),
        *("--parallel", str(settings.parallel_sequences)),
        *("--state-dir", str(paths.state / "engines" / engine)),
        *("--record", str(paths.launch_record(engine))),
        *("--serving", str(serving_file(paths.checkout))),
    ]
    if engine == "vllm" and settings.vllm_eager:
        argv.append("--eager")
    return Program(
        name=engine,
        argv=tuple(argv),
        log=paths.log(engine),
        ports=((f"BAKEOFF_{engine.upper()}_PORT", engine_port(settings, engine)),),
        url=engine_url(settings, engine),
        ready_url=f"{engine_url(settings, engine)}/health",
        engine=True,
        stop_wait_s=30,
    )


def stack_environment(settings: Settings, paths: Paths) -> dict[str, str]:
    """What every process of the stack inherits beside the user's own environment."""
    return {
        MARK: str(paths.state),
        "PYTHONUNBUFFERED": "1",
        # Traffic on this machine never goes through a proxy.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "BAKEOFF_RUNS_DIR": str(paths.checkout / settings.runs_dir),
        "BAKEOFF_ENGINES_JSON": json.dumps(
            [
                {
                    "name": engine,
                    "kind": engine,
                    "base_url": engine_url(settings, engine),
                    "model": SERVED_NAME,
                    "api": "completions",
                }
                for engine in engines_here()
            ]
        ),
        **grafana_environment(settings, paths),
    }


def render_supervisor(stack: Sequence[Program], paths: Paths) -> str:
    """Supervisor's configuration."""
    for mark in (" ;", " #", "\n"):
        if mark in str(paths.checkout):
            raise UserError(
                f"supervisor cannot work below {paths.checkout}: its name holds {mark!r}; rename the folder"
            )
    return _template(Path(__file__).with_name("supervisord.conf.j2")).render(
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
    config = render_scrape_config(
        paths.checkout,
        client=f"127.0.0.1:{settings.locust_port}",
        engine_exporter=f"127.0.0.1:{settings.engine_exporter_port}",
        prometheus=f"127.0.0.1:{settings.prometheus_port}",
        engines=[Target(engine, f"127.0.0.1:{engine_port(settings, engine)}") for engine in engines_here()],
    )
    return prometheus_files(paths.checkout, config)


def stack_key(stack: Sequence[Program], settings: Settings, paths: Paths) -> str:
    """Changes whenever a running stack is no longer what the settings ask for."""
    environment = sorted(stack_environment(settings, paths).items())
    text = f"{render_supervisor(stack, paths)}{render_prometheus(settings, paths)}{environment}"
    return hashlib.sha256(text.encode()).hexdigest()


def _escaped(path: Path) -> str:
    """Supervisor expands % in values."""
    return str(path).replace("%", "%%")


def _template(path: Path) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - configuration files, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(path.read_text(encoding="utf-8"))
