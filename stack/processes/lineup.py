"""The engines of the stack of plain processes, by profile: what each is called, where it serves, how it is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadgen.endpoints.seats import Seat
from loadgen.engines import Api, get_engine
from loadgen.errors import UserError
from loadgen.hosts.cards import CardsOf, same_card
from loadgen.machine import format_cpus
from loadgen.settings import OwnEngine, Paths, Settings, main_python, own_variable
from stack.cpus import CpuPlan
from stack.engines.launching import (
    ADDRESS_VARIABLE,
    MODEL_VARIABLE,
    PORT_VARIABLE,
    RECORD_VARIABLE,
    STATE_VARIABLE,
)
from stack.gpu import GPU_VARIABLES, HUB_ENGINES, engine_gpus, known_gpus, served_model, usable_gpus
from stack.runtime import WITHOUT
from stack.setup import ENGINES, SERVED_NAME, ksana_python, sglang_python, supported, vllm_python

LOCAL = "http://127.0.0.1"
GPU_START_LIMIT_S = 900
TWIN = "-2"
"""What a second seat's name ends with."""


@dataclass(frozen=True)
class StackEngine:
    """One engine of the stack."""

    name: str
    kind: str
    port: int
    variable: str
    """The variable of its port."""
    model: str | None = None
    api: Api | None = None
    gpus: str = ""
    """Those that it is given, commas between; empty on a CPU."""
    gpus_named: bool = False
    """Whether the user named exactly these."""
    own: OwnEngine | None = None
    """The user's own command, if it is one."""
    twin_of: str | None = None
    """The engine that it is a second seat of."""

    @property
    def program(self) -> str:
        """The engine whose program it is: its own name, or that of which it is a second seat."""
        return self.twin_of or self.name

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"{LOCAL}:{self.port}"

    @property
    def health_url(self) -> str:
        """What answers 200 when it is up."""
        return f"{self.url}{get_engine(self.kind).health_path}"

    @property
    def seat(self) -> Seat:
        """As Locust's form and races know it."""
        return Seat(
            name=self.name, kind=self.kind, base_url=self.url, model=self.model, api=self.api, twin_of=self.twin_of
        )


def on_gpu(settings: Settings) -> bool:
    """Whether the stack is that of GPU engines."""
    return settings.profile == "gpu"


def lineup(settings: Settings) -> list[StackEngine]:
    """The engines that this machine can run with these settings. Raises UserError for one that cannot be.

    On two cards or more each has a twin, a second seat on a card of its own; on a CPU where BAKEOFF_ENGINES names it.
    """
    built_in = _gpu_engines(settings) if on_gpu(settings) else _cpu_engines(settings)
    named = [name.strip() for name in settings.engines.split(",") if name.strip()]
    own = [_own(each, settings) for each in settings.own_engines]
    taken = {one.name for one in own}
    twins = [twin for each in built_in if each.name not in taken and (twin := _twin(each, settings))]
    twins = [each for each in twins if (usable_gpus()[1:] if on_gpu(settings) else each.name in named)]
    known = [each for each in [*built_in, *twins] if each.name not in taken]
    known += own
    wanted = named if on_gpu(settings) or own or twins else []
    names = [each.name for each in known]
    for name in wanted:
        if name not in names:
            raise UserError(f"BAKEOFF_ENGINES: this profile has no engine {name}; it has {', '.join(names)}")
    # Who names engines of a GPU has their second seats too.
    return [
        each
        for each in known
        if not wanted
        or each.name in wanted
        or (on_gpu(settings) and each.twin_of is not None and each.twin_of in wanted)
    ]


def _cpu_engines(settings: Settings) -> list[StackEngine]:
    return [
        StackEngine(name, name, port, f"BAKEOFF_{name.upper()}_PORT", SERVED_NAME, "completions")
        for name, port in (("llamacpp", settings.llamacpp_port), ("vllm", settings.vllm_port))
        if supported(name) is None
    ]


def _gpu_engines(settings: Settings) -> list[StackEngine]:
    model = served_model(settings) or None
    vllm, ksana = engine_gpus(settings.vllm_gpus), engine_gpus(settings.ksana_gpus)
    named = bool(settings.vllm_gpus)
    found = [StackEngine("vllm", "vllm", settings.vllm_port, "BAKEOFF_VLLM_PORT", model, "completions", vllm, named)]
    if settings.ksana_home:
        named = bool(settings.ksana_gpus)
        found.append(
            StackEngine("ksana", "ksana", settings.ksana_port, "BAKEOFF_KSANA_PORT", model, "chat", ksana, named)
        )
    if settings.sglang_python:
        port, gpus, named = settings.sglang_port, engine_gpus(settings.sglang_gpus), bool(settings.sglang_gpus)
        found.append(StackEngine("sglang", "sglang", port, "BAKEOFF_SGLANG_PORT", model, "completions", gpus, named))
    return found


def _twin(engine: StackEngine, settings: Settings) -> StackEngine | None:
    """A second seat of an engine: another port, and a card that the engine does not have, where there is one.

    None for an engine whose second seat has no port.
    """
    name, mark = engine.name + TWIN, f"{engine.name}{TWIN}".upper().replace("-", "_")
    asked = gpus = ""
    if on_gpu(settings):
        asked, taken, here = getattr(settings, f"{engine.name}_2_gpus", ""), engine.gpus.split(","), known_gpus()
        others = [gpu for gpu in usable_gpus() if not any(same_card(gpu, one, here) for one in taken)]
        gpus = engine_gpus(asked or (others or usable_gpus() or taken)[0])
    port = getattr(settings, f"{engine.name}_2_port", None)
    if port is None:
        return None
    return replace(
        engine,
        name=name,
        port=port,
        variable=f"BAKEOFF_{mark}_PORT",
        gpus=gpus,
        gpus_named=bool(asked),
        twin_of=engine.name,
    )


def _own(engine: OwnEngine, settings: Settings) -> StackEngine:
    try:
        get_engine(engine.kind)
    except UserError as error:
        raise UserError(f"{own_variable(engine.name, 'KIND')}: {error}") from None
    if engine.name in WITHOUT or engine.name.startswith("locust-"):
        raise UserError(f"{own_variable(engine.name, 'COMMAND')}: the stack has another {engine.name}")
    gpus = engine_gpus(engine.gpus) if on_gpu(settings) else ""
    return StackEngine(
        *(engine.name, engine.kind, engine.port, engine.port_variable),
        model=engine.model or None,
        gpus=gpus,
        own=engine,
    )


def pushes_metrics(engines: Sequence[StackEngine]) -> bool:
    """Whether one of these pushes its metrics, which the KsanaLLM exporter takes."""
    return any(engine.kind == "ksana" for engine in engines)


def cards_of(engine: StackEngine) -> CardsOf | None:
    """The GPUs that sizes of a serving block are held against; None for a command of the user's own, and on a CPU."""
    if engine.own or not engine.gpus:
        return None
    variable = GPU_VARIABLES.get(engine.name) or own_variable(engine.name, "GPUS")
    gpus = tuple(engine.gpus.split(","))
    return CardsOf(engine.name, engine.kind, gpus, engine.gpus_named, variable, usable_gpus())


def start_limit_s(settings: Settings) -> int:
    """How long an engine may take to become healthy."""
    given = "engine_start_limit_s" in settings.model_fields_set or not on_gpu(settings)
    return settings.engine_start_limit_s if given else GPU_START_LIMIT_S


def command(engine: StackEngine, settings: Settings, paths: Paths, cpus: CpuPlan) -> tuple[str, ...]:
    """The command line that becomes the engine."""
    if engine.own:
        record = ("--record", str(paths.launch_record(engine.name)))
        return _in_turn(engine, settings, paths, cpus, (*record, "--", "/bin/sh", "-c", engine.own.command), {})
    if not on_gpu(settings):
        return _cpu_command(engine, settings, paths, cpus)
    variables = {
        MODEL_VARIABLE: _model(engine, settings, paths.checkout),
        ADDRESS_VARIABLE: "127.0.0.1",
        RECORD_VARIABLE: str(paths.launch_record(engine.name)),
        STATE_VARIABLE: str(_state(engine, paths)),
    }
    if engine.program in HUB_ENGINES:
        python = vllm_python(settings, paths) if engine.program == "vllm" else sglang_python(settings)
        launcher = "vllm/serve_gpu.py" if engine.program == "vllm" else "sglang/serve.py"
        variables["BAKEOFF_SERVED_NAME"] = served_model(settings)
        # An empty file, unless one is named: not that of a container.
        token = settings.hf_token_file and str(paths.checkout / settings.hf_token_file)
        variables["BAKEOFF_HF_TOKEN_FILE"] = token or "/dev/null"
    else:
        launcher, python = "ksana/serve.py", ksana_python(settings)
        variables["BAKEOFF_KSANA_SERVER"] = str(ksana_server(settings, paths.checkout))
    program = (str(python), str(paths.checkout / "stack" / "engines" / launcher))
    return _in_turn(engine, settings, paths, cpus, ("--", *program), variables)


def _in_turn(
    engine: StackEngine,
    settings: Settings,
    paths: Paths,
    cpus: CpuPlan,
    rest: Sequence[str],
    variables: Mapping[str, str],
) -> tuple[str, ...]:
    """A command that begins when memory on its GPUs is free, on the engines' cores, unless a race places it."""
    variables = {**variables, PORT_VARIABLE: str(engine.port)}
    if engine.kind == "ksana":
        variables["BAKEOFF_METRICS_URL"] = f"{LOCAL}:{settings.ksana_exporter_port}/{engine.name}/v1/metrics"
    return (
        *(main_python(paths.checkout), "-m", "stack.processes.turn"),
        *("--engine", engine.name, "--cpus", format_cpus(cpus.engine), "--gpus", engine.gpus),
        # Serving settings are not applied to a command of the user's own: it gets the cards that it was given.
        *("--kind", "" if engine.own else engine.kind, *(("--named",) if engine.gpus_named else ())),
        *(word for name, value in variables.items() for word in ("--set", f"{name}={value}")),
        *rest,
    )


def _model(engine: StackEngine, settings: Settings, checkout: Path) -> str:
    """As the engine's container is told it: a hub's model goes first, where the engine takes one."""
    if engine.program in HUB_ENGINES and settings.model:
        return settings.model
    return str(checkout / settings.model_dir) if settings.model_dir else ""


def ksana_server(settings: Settings, checkout: Path) -> Path:
    """KsanaLLM's folder with its server, in its built checkout or where that itself is named."""
    home = checkout / Path(settings.ksana_home).expanduser()
    inside = home / "src" / "ksana_llm" / "python"
    return home if (home / "serving_server.py").is_file() else inside


def _state(engine: StackEngine, paths: Paths) -> Path:
    return paths.state / "engines" / engine.name


def _cpu_command(engine: StackEngine, settings: Settings, paths: Paths, cpus: CpuPlan) -> tuple[str, ...]:
    """Both CPU engines get the same cores, context and number of sequences."""
    name, program = engine.name, engine.program
    rest = (
        *("--", str(paths.engine_python(program)), "-m", f"stack.engines.{program}.serve"),
        *("--model", str(paths.hf_model if program == "vllm" else paths.gguf)),
        *("--served-name", SERVED_NAME),
        *("--port", str(engine.port)),
        *("--context-tokens", str(settings.context_tokens)),
        *("--parallel", str(settings.parallel_sequences)),
        *("--state-dir", str(_state(engine, paths))),
        *("--record", str(paths.launch_record(name))),
        *(("--eager",) if program == "vllm" and settings.vllm_eager else ()),
    )
    return _in_turn(engine, settings, paths, cpus, rest, {})


def unavailable(settings: Settings) -> dict[str, str]:
    """Engines that this machine cannot run, or that are not set up, and why."""
    if on_gpu(settings):
        ksana = {} if settings.ksana_home else {"ksana": "set BAKEOFF_KSANA_HOME to its built checkout"}
        sglang = {} if settings.sglang_python else {"sglang": "set BAKEOFF_SGLANG_PYTHON to a Python that has it"}
        return ksana | sglang
    return {name: reason for name in ENGINES if (reason := supported(name))}
