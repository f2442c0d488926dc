"""The run folder: `manifest.json`, `requests.jsonl` (crash-safe) and `requests.parquet` (closed)."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from loadgen.errors import UserError
from loadgen.manifest import BlockFacts, Manifest, load_manifest, save_manifest
from loadgen.record import FIELD_NAMES, RequestRecord
from loadgen.window import Cut, cut_block

MANIFEST = "manifest.json"
JSONL = "requests.jsonl"
PARQUET = "requests.parquet"

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("run_id", "block", "engine", "model", "cell", "api", "worker"), pl.String),
    **dict.fromkeys(("user", "index"), pl.Int32),
    "phase": pl.String,
    **dict.fromkeys(("t_intended", "t_send", "t_first", "t_last", "t_done", "wall_offset_ns", "connect_ns"), pl.Int64),
    **dict.fromkeys(("prompt_tokens_wanted", "output_tokens_wanted", "prompt_tokens", "output_tokens"), pl.Int32),
    "token_source": pl.String,
    "events": pl.Int32,
    "event_offsets_ns": pl.List(pl.Int64),
    "clock": pl.String,
    "read_lags_ns": pl.List(pl.Int64),
    "finish_reason": pl.String,
    "http_status": pl.Int32,
    **dict.fromkeys(("error", "error_detail", "text"), pl.String),
}


class RecordFile:
    """Appends request records to a `.jsonl` file, one line each; every append reaches the operating system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self._mend_torn_end()

    def _mend_torn_end(self) -> None:
        """Start a new line when an earlier writer was killed in the middle of one."""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    os.write(self._fd, b"\n")

    def append(self, records: Iterable[RequestRecord]) -> None:
        """Write records, all or none. Raises OSError (disk full) with the file as it was before."""
        data = b"".join(map(_line, records))
        view = memoryview(data)
        size = os.fstat(self._fd).st_size
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device cannot be cut; the first error is the one to tell
                os.ftruncate(self._fd, size)
            raise

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(record: RequestRecord) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits, which a server may send
        return json.dumps(record.to_dict(), separators=(",", ":")).encode() + b"\n"


def read_records(path: Path) -> tuple[list[RequestRecord], int]:
    """Read a `.jsonl` file. Returns the records and the number of unreadable lines (torn by a crash)."""
    records, broken = [], 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    records.append(RequestRecord.from_dict(json.loads(line)))
                except (ValueError, TypeError, AttributeError):
                    broken += 1
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return records, broken


@dataclasses.dataclass(frozen=True, slots=True)
class BlockData:
    """One block with its records and phases."""

    facts: BlockFacts
    records: list[RequestRecord]
    cut: Cut

    @property
    def measured(self) -> list[RequestRecord]:
        """The measured requests, in the order they were sent."""
        chosen = [r for r, phase in zip(self.records, self.cut.phases, strict=True) if phase == "measure"]
        return sorted(chosen, key=lambda r: r.t_send + r.wall_offset_ns)


@dataclasses.dataclass(frozen=True, slots=True)
class RunData:
    """A whole run, read from its folder."""

    folder: Path
    manifest: Manifest
    blocks: list[BlockData]
    broken_lines: int


def _storable(value: Any) -> Any:
    """Replace what UTF-8 cannot hold: JSON may carry half of a surrogate pair, Parquet may not."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / MANIFEST
        self.records_path = path / JSONL
        self.parquet_path = path / PARQUET

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

    @classmethod
    def find(cls, runs_dir: Path, run: str | None) -> RunFolder:
        """Find a run by path or id, or the newest readable one. Raises UserError when there is none."""
        if run is not None:
            for candidate in (Path(run), runs_dir / run):
                if (candidate / MANIFEST).is_file():
                    return cls(candidate)
        known = sorted(path.parent for path in runs_dir.glob(f"*/{MANIFEST}"))
        if run is not None:
            newest = ", ".join(path.name for path in known[-3:]) or "none"
            raise UserError(f"There is no run {run!r} (a run folder holds {MANIFEST}). Newest in {runs_dir}: {newest}.")
        if not known:
            raise UserError(f"There is no run in {runs_dir} yet. Make one with `make bench`.")
        starts: dict[Path, float] = {}
        for path in known:
            try:
                starts[path] = load_manifest(path / MANIFEST).started_at
            except UserError:
                if len(known) == 1:
                    raise
        if not starts:
            raise UserError(f"None of the {len(known)} runs in {runs_dir} has a readable {MANIFEST}.")
        return cls(max(starts, key=lambda path: (starts[path], path.name)))

    def load(self) -> RunData:
        """Read the manifest and all records, and cut every block into its phases.

        Records of a block that the manifest does not know (a crash between the two) are left out of the blocks.
        """
        manifest = load_manifest(self.manifest_path)
        records, broken = read_records(self.records_path)
        by_block: dict[str, list[RequestRecord]] = {}
        for record in records:
            by_block.setdefault(record.block, []).append(record)
        blocks = []
        for facts in manifest.blocks:
            own = by_block.get(facts.record_id, [])
            cut = cut_block(
                own,
                users=facts.users,
                warmup_requests=facts.warmup_requests,
                measured_requests=facts.measured_requests,
                open_loop=facts.rate > 0,
            )
            blocks.append(BlockData(facts, own, cut))
        return RunData(self.path, manifest, blocks, broken)

    def close(self, data: RunData | None = None) -> Path:
        """Write `requests.parquet` (one row a request, with its phase) from the records; returns its path.

        Raises:
            UserError: it cannot be written. `requests.jsonl` stays as it is.
        """
        data = data or self.load()
        rows = [
            {**{name: _storable(value) for name, value in record.to_dict().items()}, "phase": phase}
            for block in data.blocks
            for record, phase in zip(block.records, block.cut.phases, strict=True)
        ]
        frame = pl.DataFrame(rows, schema=SCHEMA)
        temporary = self.parquet_path.with_suffix(".parquet.part")
        packed = io.BytesIO()  # written by ourselves: on a full disk polars speaks of a broken transport
        frame.write_parquet(packed)
        try:
            temporary.write_bytes(packed.getbuffer())
            temporary.replace(self.parquet_path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UserError(
                f"{self.parquet_path}: cannot be written: {error.strerror or error}. The records are safe in {JSONL}."
            ) from None
        return self.parquet_path


assert set(SCHEMA) - {"phase"} == set(FIELD_NAMES), "the parquet schema must name every field of a record"  # noqa: S101
