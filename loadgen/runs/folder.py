"""The run folder: `manifest.json`, `requests.jsonl` (crash-safe), and `requests.parquet` once it is closed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from loadgen.errors import UserError
from loadgen.hosts.lock import held
from loadgen.machine import by_make
from loadgen.metrics.window import Cut
from loadgen.record import RequestRecord
from loadgen.runs.manifest import BlockFacts, Manifest, load_manifest, save_manifest
from loadgen.runs.record_file import BadLine, read_records

MANIFEST = "manifest.json"
JSONL = "requests.jsonl"
PARQUET = "requests.parquet"


@dataclasses.dataclass(frozen=True)
class BlockData:
    """One block with its records and phases."""

    facts: BlockFacts
    records: list[RequestRecord]
    cut: Cut

    @functools.cached_property
    def measured(self) -> list[RequestRecord]:
        """The measured requests, in the order they were sent."""
        return sorted(self.cut.measured(self.records), key=lambda r: r.t_send + r.wall_offset_ns)

    @property
    def lacks(self) -> int:
        """How many requests it measured that its records have not, as in a file that was cut."""
        wanted = self.facts.measured_requests
        return 0 if wanted is None or self.facts.ended_early is not None else max(0, wanted - len(self.measured))


@dataclasses.dataclass(frozen=True, slots=True)
class RunData:
    """A whole run, read from its folder."""

    folder: Path
    manifest: Manifest
    blocks: list[BlockData]
    bad_lines: list[BadLine]
    """Of `requests.jsonl`, left out."""


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / MANIFEST
        self.records_path = path / JSONL
        self.parquet_path = path / PARQUET

    @property
    def report_command(self) -> str:
        """The command that makes and shows its report."""
        path = shlex.quote(str(self.path))
        return f"make report RUN={path}" if by_make() else f"bakeoff report {path}"

    @classmethod
    def create(cls, runs_dir: Path, manifest: Manifest) -> RunFolder:
        """Make the folder of a new run. Raises UserError when it exists or cannot be made."""
        folder = cls(runs_dir / manifest.run_id)
        try:
            folder.path.mkdir(parents=True, exist_ok=False)
            if os.geteuid() == 0:
                # Locust's containers never run as root: who owns the runs writes this one's records.
                owner = runs_dir.stat()
                os.chown(folder.path, owner.st_uid, owner.st_gid)
        except FileExistsError:
            raise UserError(f"{folder.path} exists already; wait a second and try again.") from None
        except OSError as error:
            raise UserError(f"{folder.path}: cannot be made: {error.strerror or error}") from None
        save_manifest(manifest, folder.manifest_path)
        return folder

    @property
    def measured_something(self) -> bool:
        """Whether it holds any record."""
        return self.records_path.stat().st_size > 0 if self.records_path.exists() else self.parquet_path.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for one writer. Raises UserError when another process writes it now."""
        with held(self.path / ".lock", f"A race that writes {self.path}", remove=True):
            yield

    @classmethod
    def find(cls, runs_dir: Path, run: str | None) -> RunFolder:
        """Find a run by path or id, or the newest readable one that measured something, if any did.

        Raises UserError when there is none.
        """
        if run is not None:
            for candidate in (Path(run), runs_dir / run):
                if (candidate / MANIFEST).is_file():
                    return cls(candidate)
        known = sorted(path.parent for path in runs_dir.glob(f"*/{MANIFEST}"))
        if run is not None:
            newest = ", ".join(path.name for path in known[-3:]) or "none"
            raise UserError(f"There is no run {run!r} (a run folder holds {MANIFEST}). Newest in {runs_dir}: {newest}.")
        if not known:
            command = "make bench" if by_make() else f"bakeoff bench --runs-dir {runs_dir}"
            raise UserError(f"There is no run in {runs_dir} yet. Make one with `{command}`.")
        starts: dict[Path, tuple[bool, float]] = {}
        for path in known:
            try:
                starts[path] = cls(path).measured_something, load_manifest(path / MANIFEST).started_at
            except UserError:
                if len(known) == 1:
                    raise
        if not starts:
            raise UserError(f"None of the {len(known)} runs in {runs_dir} has a readable {MANIFEST}.")
        return cls(max(starts, key=lambda path: (starts[path], path.name)))

    def load(self) -> RunData:
        """Read the manifest and all records, and cut every block into its phases.

        Records come from `requests.jsonl`, or from `requests.parquet` where that is all there is.
        Records of a block that the manifest does not know (a crash between the two) are left out of the blocks.
        """
        manifest = load_manifest(self.manifest_path)
        records, bad = read_records(self.records_path)
        if not self.records_path.exists() and self.parquet_path.exists():
            from loadgen.runs.parquet import read_parquet  # here, because polars is slow to load

            records = read_parquet(self.parquet_path)
        by_block: dict[str, list[RequestRecord]] = {}
        for record in records:
            by_block.setdefault(record.block, []).append(record)
        blocks = []
        for facts in manifest.blocks:
            own = by_block.get(facts.record_id, [])
            blocks.append(BlockData(facts, own, facts.cut_rule.cut(own)))
        return RunData(self.path, manifest, blocks, bad)
