"""What a peer is: how it is set up, what it is asked to do, and how its own figures are read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.client.errors import Measured
from benchmarks.client.loads import Load
from benchmarks.client.peer_environment import Environment

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """One run: what to send where, and where to leave what."""

    url: str
    load: Load
    folder: Path
    """Of this run alone; the peer's output goes here."""
    tokenizer: Path
    """A tokenizer folder of transformers' form: one token a word."""
    prompts: Path
    """JSON lines of `prompt` and `output_tokens_count`, one for each request."""
    model: str = "simulated"

    @property
    def requests(self) -> int:
        """Requests of all streams together."""
        return self.load.streams * self.load.rounds


class Peer(ABC):
    """One tool. Its figures are what it writes itself, by its own definitions where those are ours too."""

    name: ClassVar[str]
    """As it is typed."""
    title: ClassVar[str]
    what: ClassVar[str]
    """How it is used and how it stamps, for the document: half a sentence."""
    packages: ClassVar[tuple[str, ...]]
    """Whose versions are told; the first is the tool's own."""
    environment: ClassVar[Environment]
    """Its Python environment."""
    blast_rounds: ClassVar[int] = 20
    """Requests of each stream in blast: so many that it takes a few seconds."""
    start_s: ClassVar[float] = 5.0
    """About what a run takes beside its load."""
    good_exits: ClassVar[tuple[int, ...]] = (0,)
    """Exit codes of a run that went well."""

    @abstractmethod
    def command(self, python: Path, job: Job) -> list[str]:
        """The command to run, its output going to `job.folder`; may write configuration there."""

    @abstractmethod
    def read(self, folder: Path, wall_offset_s: float) -> list[Measured]:
        """Its successful requests.

        Args:
            folder: its output.
            wall_offset_s: the wall clock minus CLOCK_MONOTONIC while it ran, for tools that keep wall times. Both
                are slewed alike, so it does not drift.

        Raises:
            OSError, ValueError, KeyError, TypeError, IndexError, ArithmeticError: its output is not as expected.
        """

    def variables(self, job: Job) -> dict[str, str]:
        """Environment variables to set."""
        return {}


def base_variables(state: Path) -> dict[str, str]:
    """Of every peer: nothing is asked of a hub, nothing is reported home, no proxy stands in between."""
    hub = str(state / "hub")
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": hub, "DO_NOT_TRACK": "1"}
    return {**os.environ, **quiet, "VLLM_NO_USAGE_STATS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
