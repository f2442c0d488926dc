"""Takes up a run that was stopped: what it was, what has changed since, and the gap in its manifest."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from loadgen.endpoints.endpoint import Endpoint
from loadgen.errors import UserError
from loadgen.machine import is_loopback
from loadgen.message import say
from loadgen.runs.folder import MANIFEST, RunFolder
from loadgen.runs.manifest import EngineFacts, Manifest, Session, load_manifest
from loadgen.scenario.file import load_scenario
from loadgen.scenario.model import Scenario

_PATH = r"[\w./][\w./-]*"
OWN_COMMAND = re.compile(
    rf"make bench RUN={_PATH}|bakeoff bench --resume {_PATH}"
    r"( --engine [\w.-]+=https?://[\w.:/\[\]-]+(,(kind|model|api|metrics)=[\w./:-]+)*)*"
    r"( --gpu-metrics https?://[\w.:/\[\]-]+)?( --workers \d+)?",
    re.ASCII,
)
"""What a command to go on is made of: no character that a shell or make reads, and no option that tells secrets."""
MACHINE = ("cpu", "cpus_usable", "memory_bytes", "gpus")
"""Facts of the host that make it another machine."""


def reopen(
    folder: RunFolder, *, host: dict[str, Any], git: dict[str, Any], command: list[str], extend: bool = False
) -> Manifest:
    """Read a run's manifest and begin a new session in it. Nothing is written yet.

    Args:
        folder: the run's.
        host: this machine (`machine.host_facts`).
        git: this checkout (`machine.git_facts`).
        command: the command line that resumes it.
        extend: whether it gets further repeats, so that it may be complete.

    Raises:
        UserError: it is complete and gets no more, it is no bench's, or it was measured on another machine.
    """
    manifest = load_manifest(folder.manifest_path)
    if folder.path.resolve().name != manifest.run_id:  # else its records would go to the folder of that name
        raise UserError(
            f"{folder.path} holds run {manifest.run_id}: a run goes on in a folder of its own name only. Rename it."
        )
    if manifest.source != "bench" or not manifest.scenario:
        raise UserError(f"{folder.path} was not made by `bakeoff bench`: only such a run can be resumed.")
    if manifest.status == "complete" and not extend:
        raise UserError(
            f"{folder.path} is complete: nothing to resume. See it with `{folder.report_command}`, or go on with more "
            "repeats: --repeats N or --until-decided."
        )
    for fact in MACHINE:
        if manifest.host.get(fact) != host.get(fact):
            raise UserError(
                f"{folder.path} was measured on another machine ({fact}: {manifest.host.get(fact)}, here "
                f"{host.get(fact)}): start a run of its own here, and compare the two."
            )
    written = folder.manifest_path.stat().st_mtime
    for facts in manifest.blocks:
        if facts.status == "running":
            facts.status, facts.ended_at = "interrupted", written
            facts.reason = say("the process that ran it was killed")
    former = manifest.sessions or [Session(started_at=manifest.started_at, ended_at=manifest.ended_at)]
    if former[-1].ended_at is None:
        former[-1].ended_at = written
    began = time.time()
    manifest.messages.append(
        say(
            "Resumed after a gap of {span}, with {count} blocks complete.",
            span=_span(began - former[-1].ended_at),
            count=len(manifest.complete_blocks()),
        )
    )
    if git.get("commit") != manifest.git.get("commit"):
        manifest.messages.append(
            say(
                "Bakeoff itself has changed since this run began (commit {before}, now {now}).",
                before=manifest.git.get("commit"),
                now=git.get("commit"),
            )
        )
    manifest.sessions = [*former, Session(started_at=began, command=command, git=git)]
    manifest.status, manifest.ended_at = "running", None
    return manifest


def extend_command(manifest: Manifest, repeats: int) -> str:
    """The command that goes on with a run to so many repeats; empty where it is not known.

    The run may be from anyone, and people paste what they are told: a command that is not of our making is none.
    """
    if not OWN_COMMAND.fullmatch(manifest.resume):
        return ""
    option = f"--repeats {repeats}"
    return f'{manifest.resume} ARGS="{option}"' if manifest.resume[:4] == "make" else f"{manifest.resume} {option}"


def find_scenario(name_or_path: str) -> Scenario:
    """Read a shipped scenario by name, a scenario file by path, or what a run raced by the run's folder.

    Raises:
        UserError: there is no such scenario, or it is wrong; with file, line and a hint.
    """
    manifest = Path(name_or_path) / MANIFEST
    try:
        is_run = manifest.is_file()
    except (OSError, ValueError):  # no path at all: reading it tells more
        is_run = False
    return scenario_of(load_manifest(manifest)) if is_run else load_scenario(name_or_path)


def scenario_of(manifest: Manifest) -> Scenario:
    """The scenario that a run raced. Raises UserError when this Bakeoff cannot read it."""
    try:
        return Scenario.model_validate(manifest.scenario)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise UserError(f"The scenario of run {manifest.run_id} cannot be read: {key}: {first['msg']}") from None


def readable_scenario(manifest: Manifest) -> Scenario | None:
    """The scenario of a bench; None where there is none that can be read."""
    try:
        return scenario_of(manifest) if manifest.source == "bench" else None
    except UserError:
        return None


def same_endpoint(manifest: Manifest, now: Endpoint) -> None:
    """Check, before anything is touched, that an endpoint is the one that a run raced. Raises UserError."""
    was = next((facts for facts in manifest.engines if facts.name == now.name), None)
    if was is not None:
        _refuse_changes(now.name, _identity(was, now))


def same_engine(manifest: Manifest, now: EngineFacts) -> None:
    """Check that an engine is what it was earlier in this run. Raises UserError where it is another."""
    was = next((facts for facts in manifest.engines if facts.name == now.name), None)
    if was is None:
        return
    pairs = {
        **_identity(was, now),
        "context length": (was.context_length, now.context_length),
        "prompts": (was.prompts, now.prompts),
        "command line": (was.launch.get("argv"), now.launch.get("argv")),
    }
    _refuse_changes(now.name, pairs)


def _identity(was: EngineFacts, now: Endpoint | EngineFacts) -> dict[str, tuple[object, object]]:
    """What an engine was and is, by what an endpoint tells of itself."""
    return {
        "address": (_place(was.base_url), _place(now.base_url)),
        "kind": (was.kind, now.kind),
        "version": (was.version, now.version),
        "model": (was.model, now.model),
    }


def _place(url: str) -> str:
    """An address, the same for all names of this machine."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname):
        return url
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://127.0.0.1{port}{parts.path.rstrip('/')}"


def _refuse_changes(name: str, pairs: Mapping[str, tuple[object, object]]) -> None:
    changed = [f"{what} was {old}, and is {new}" for what, (old, new) in pairs.items() if old != new]
    if changed:
        raise UserError(f"{name} is not the engine that this run began with: {'; '.join(changed)}.")


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
