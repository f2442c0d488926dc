"""Reads engines' own metrics while their blocks run, in a thread of the campaign's process.

Nothing of it is in the way of a block: a page that is slow, absent or broken costs its own figures and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from loadgen.message import Message, say
from loadgen.monitoring.engine_page import PageError, Reading, read_engine, read_gpus
from loadgen.monitoring.engine_samples import MAX_ROWS, BlockSamples, append_samples

INTERVAL_S = 1.0
SHARE = 0.02
"""Of the time that reading may take: a page that takes long is read less often."""
SPARSER = 500
"""Readings after which the pauses grow with the block's length: a day has three thousand."""
GIVE_UP = 3
"""Failures in a row after which a page is asked no more in this block."""
LONGEST_PAUSE_S = 5.0
PUSHED_S = 2.5
"""After so long the exporter of an engine that pushes its metrics, each 2 s, has all of a block."""
LAST_LIMIT_S, SHORT_LIMIT_S = 1.0, 0.1
"""Longest wait for the last reading, when the block has ended; and for one that failed before."""


class Reader(Protocol):
    """Who fetches a page."""

    @property
    def url(self) -> str:
        """Where it is."""

    def read(self) -> str:
        """The page. Raises PageError."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pages:
    """Where an engine's figures are to be read."""

    engine: Reader | None = None
    label: str = ""
    """The engine, as KsanaLLM's exporter calls it."""
    gpus: Reader | None = None
    gpu_labels: tuple[str, ...] = ()
    """What the GPU exporter may call it, best first."""


class EngineWatch:
    """Keeps what is read of each block in the run's folder."""

    def __init__(
        self,
        pages: Callable[[str], Pages],
        path: Path,
        interval_s: float = INTERVAL_S,
        linger_s: float = 0.0,
    ) -> None:
        """`pages` gives an engine's when its block begins; when it has ended they are read for `linger_s` more."""
        self._pages = pages
        self._path = path
        self._interval_s = interval_s
        self._linger_s = linger_s
        self._told: set[str] = set()
        self._failed: set[str] = set()
        """Engines whose last block gave nothing: for their next nobody waits."""
        self._keeping = threading.Lock()  # blocks that run together end at once
        self._running: dict[str, Sampler] = {}
        """The last of each engine: one that still hangs is not joined by another."""

    @contextlib.contextmanager
    def over(self, engine: str, block: str, note: Callable[[str], None]) -> Iterator[None]:
        """Read while this block runs, which ends as it would without; `note` is told what fails, once each."""
        former, sampler = self._running.get(engine), None
        if former is None or not former.is_alive():
            sampler = self._running[engine] = Sampler(self._pages(engine), self._interval_s)
            sampler.start()
        try:
            yield
            if sampler is not None and engine not in self._failed:
                sampler.join(self._linger_s)
        finally:
            if sampler is not None:
                sampler.finish(SHORT_LIMIT_S if engine in self._failed else LAST_LIMIT_S)
                with self._keeping:
                    self._keep(engine, block, sampler, note)

    def _keep(self, engine: str, block: str, sampler: Sampler, note: Callable[[str], None]) -> None:
        samples = sampler.samples(block)
        problems = list(sampler.problems(engine))
        for words in problems:
            if words.code + engine not in self._told:
                self._told.add(words.code + engine)
                note(words)
        (self._failed.add if problems else self._failed.discard)(engine)
        if samples is None:
            return
        try:
            append_samples(self._path, samples)
        except OSError as error:
            if "file" not in self._told:
                self._told.add("file")
                note(
                    say(
                        "{file} cannot be written ({problem}): the engines' own figures are missing from the report.",
                        file=self._path.name,
                        problem=error.strerror or error,
                    )
                )


class _Page:
    """One page over one block."""

    def __init__(self, reader: Reader, understand: Callable[[str], Reading]) -> None:
        self._reader = reader
        self._understand = understand
        self.rows: list[tuple[float, Reading]] = []
        self.failures = 0
        self.problem: str | None = None
        """Of the last failure."""

    @property
    def url(self) -> str:
        return self._reader.url

    @property
    def hopeless(self) -> bool:
        return self.failures >= GIVE_UP

    def read(self) -> None:
        """Add a reading, put at half the time that it took."""
        began = time.time()
        try:
            reading = self._understand(self._reader.read())
        except PageError as error:
            self.failures += 1
            self.problem = str(error.args[0])
        else:
            self.failures = 0
            if reading and len(self.rows) < MAX_ROWS // 2:
                self.rows.append(((began + time.time()) / 2, reading))


class Sampler(threading.Thread):
    """Reads one block's pages until it is told to finish."""

    def __init__(self, pages: Pages, interval_s: float) -> None:
        super().__init__(name="engine-figures", daemon=True)
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._engine = (
            None if pages.engine is None else _Page(pages.engine, lambda page: read_engine(page, pages.label))
        )
        self._gpus = None if pages.gpus is None else _Page(pages.gpus, lambda page: read_gpus(page, pages.gpu_labels))

    def run(self) -> None:
        """Read at once, then again and again, and once more at the end."""
        pages = [page for page in (self._engine, self._gpus) if page is not None]
        began = time.monotonic()
        while pages := [page for page in pages if not page.hopeless]:
            ended = self._ended.is_set()
            asked = time.monotonic()
            for page in pages:
                page.read()
            if ended:
                return
            now = time.monotonic()
            slow = min((now - asked) / SHARE, LONGEST_PAUSE_S)
            pause = max(self._interval_s, slow, (now - began) / SPARSER)
            self._ended.wait(pause - (now - asked))

    def finish(self, limit_s: float) -> None:
        """Have it read once more, and wait for that at most so long; hardly for one that is failing now."""
        self._ended.set()
        failing = any(page is not None and page.failures for page in (self._engine, self._gpus))
        self.join(SHORT_LIMIT_S if failing else limit_s)

    def samples(self, block: str) -> BlockSamples | None:
        """What was read so far; None where there is no page, and so nothing to say."""
        if self._engine is None and self._gpus is None:
            return None
        rows = [row for page in (self._engine, self._gpus) if page is not None for row in tuple(page.rows)]
        lacking = self._engine is not None and not self._engine.rows
        problem = self._engine.problem if lacking and self._engine is not None else None
        return BlockSamples(block, sorted(rows, key=lambda row: row[0]), problem)

    def problems(self, engine: str) -> Iterator[Message]:
        """What a person should know: pages that gave nothing in this block."""
        if self._engine is not None and not self._engine.rows and self._engine.problem:
            yield say(
                "{engine}: its metrics at {url} could not be read: {problem}. Its own figures are missing from the "
                "report; the blocks are as good without.",
                engine=engine,
                url=self._engine.url,
                problem=self._engine.problem,
            )
        if self._gpus is not None and not self._gpus.rows and self._gpus.problem:
            yield say(
                "The GPU exporter's page at {url} could not be read: {problem}. GPU memory and power of {engine} are "
                "missing from the report.",
                url=self._gpus.url,
                problem=self._gpus.problem,
                engine=engine,
            )
