"""Marks a race and its blocks in Grafana, by a program of its own that is told of them line by line.

The program (`grafana/annotator/annotate.py`) has an environment of its own, because Grafana's client would slow this
one's HTTP libraries. Nothing here waits for it while the race runs, and whatever fails costs one warning.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from loadgen.bench.listener import Listener
from loadgen.distributed.status import BlockStatus
from loadgen.runs.manifest import BlockFacts, Manifest
from loadgen.scenario.model import Block

PROGRAM = Path("grafana") / "annotator" / "annotate.py"
ENVIRONMENT = Path(".bakeoff") / "venvs" / "grafana"
LOG = Path(".bakeoff") / "logs" / "annotator.log"
PASSWORD_VARIABLE = "GRAFANA_PASSWORD"  # noqa: S105 - the name of a variable
END_LIMIT_S = 5.0
TAG_LENGTH = 100
"""As long as Grafana stores it."""
TEXT_LENGTH = 400
"""A line is never longer than a pipe takes as a whole or not at all (4096 bytes on Linux)."""


class _Program:
    """The program as a child process, that is told and listened to without waiting. Raises OSError."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the race
            )
        self.stdin, self.stdout = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        for pipe in (self.stdin, self.stdout):
            os.set_blocking(pipe.fileno(), False)

    def tell(self, line: str) -> None:
        """Pass a line on. Raises BlockingIOError where it is not taken at once, OSError where the program ended."""
        os.write(self.stdin.fileno(), line.encode() + b"\n")

    def said(self) -> str:
        """What it has said since; empty for nothing."""
        try:
            return os.read(self.stdout.fileno(), 4096).decode("utf-8", "replace").strip()
        except OSError:
            return ""


class Annotations(Listener):
    """Marks a run while this is entered. No method raises for what goes wrong with Grafana.

    Args:
        manifest: the run's; it says at the end what became of it.
        question: what the run is to answer.
        url: where Grafana is.
        password: that of its user `admin`.
        checkout: where the program and its environment lie.
        warn: shows a line to a person; called once at most.
    """

    def __init__(
        self, manifest: Manifest, question: str, *, url: str, password: str, checkout: Path, warn: Callable[[str], None]
    ) -> None:
        self._manifest, self._question = manifest, question
        self._url, self._password, self._checkout = url, password, checkout
        self._warn = warn
        self._program: _Program | None = None
        self._begun: set[str] = set()

    def __enter__(self) -> Self:
        python = self._checkout / ENVIRONMENT / "bin" / "python"
        if python.is_file():
            self._start([str(python), "-I", str(self._checkout / PROGRAM), self._url])
        else:
            self._complain("its client is not set up, which `make up` does")
        self._mark_run(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark_run(time.time())
        program, self._program = self._program, None
        if program is None:
            return
        try:
            program.stdin.close()
            program.process.wait(END_LIMIT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as broken_off:
            program.process.kill()
            program.process.wait()
            if isinstance(broken_off, KeyboardInterrupt):
                raise
            self._complain(program.said() or f"Grafana did not take all within {END_LIMIT_S:g} s")
        else:
            if said := program.said():
                self._complain(said)
        finally:
            program.stdout.close()

    def block(self, block: Block, number: int, total: int, status: BlockStatus) -> None:
        """Mark a block's begin."""
        key = str(status.block)
        if key not in self._begun:
            self._begun.add(key)
            self._mark_block(key, block.name, block.cell.id, f"repeat {block.repeat}: running", time.time(), None)
        self._listen()

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """Mark a block's end and outcome."""
        ended = facts.ended_at or time.time()
        text = (
            f"repeat {facts.repeat}"
            + ("" if facts.attempt == 1 else f", attempt {facts.attempt}")
            + f": {facts.status} in {ended - facts.started_at:.1f} s"
            + (", client-limited" if facts.client_limited else "")
            + (", on a shared machine" if facts.contended else "")
            + (f" ({facts.reason})" if facts.reason else "")
        )
        self._mark_block(facts.record_id, facts.engine, facts.cell, text, facts.started_at, ended)
        self._listen()

    def _mark_run(self, end: float | None) -> None:
        run = self._manifest
        text = f"{run.run_id}: {'running' if end is None else run.status}. {self._question}"
        # A run that is gone on with is marked once more: between its sessions nothing ran.
        start = run.sessions[-1].started_at if run.sessions else run.started_at
        self._tell("run", ["run"], text, start, end)

    def _mark_block(self, key: str, engine: str, cell: str, text: str, start: float, end: float | None) -> None:
        tags = ["block", f"engine:{engine}", f"cell:{cell}"]
        self._tell(f"block {key}", tags, f"{engine} {cell} {text}", start, end)

    def _start(self, command: list[str]) -> None:
        try:
            self._program = _Program(command, _environment(os.environ, self._password), self._checkout / LOG)
        except OSError as error:
            self._complain(f"{command[2]} does not start: {error.strerror or error}")

    def _tell(self, key: str, tags: list[str], text: str, start: float, end: float | None) -> None:
        """Pass a region on; it is lost where the program does not take it at once."""
        if self._program is None:
            return
        region = {
            "key": key,
            "time": round(start * 1000),
            "end": None if end is None else round(end * 1000),
            "tags": [tag[:TAG_LENGTH] for tag in ("bakeoff", f"run:{self._manifest.run_id}", *tags)],
            "text": text[:TEXT_LENGTH],
        }
        try:
            self._program.tell(json.dumps(region, ensure_ascii=False))
        except BlockingIOError:
            self._complain("its program does not take what it is told")
        except OSError:
            pass  # it has ended, and _listen finds out why

    def _listen(self) -> None:
        """Show the program's one line, or that it has ended."""
        program = self._program
        if program is None:
            return
        if said := program.said():
            self._complain(said)
        elif program.process.poll() is not None:
            self._complain(f"its program ended by itself ({self._checkout / LOG} may say why)")

    def _complain(self, why: str) -> None:
        """Warn for the first time, and be silent from then on."""
        warn, self._warn = self._warn, _silent
        warn(f"Runs are not marked in Grafana ({self._url}): {why}. The race does without.")


def _silent(text: str) -> None:
    """Say nothing."""


def _environment(own: Mapping[str, str], password: str) -> dict[str, str]:
    """The program's: the password, and no proxy, as Grafana is on this machine."""
    return {**own, PASSWORD_VARIABLE: password, "NO_PROXY": "*", "no_proxy": "*"}
