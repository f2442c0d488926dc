"""`requests.parquet` of a run folder: one row a request, with its phase; written when a run is closed.

A folder that was handed on may hold it alone: all that a record holds is in it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written, open_regular
from loadgen.record import FIELD_NAMES, RequestRecord
from loadgen.runs.folder import JSONL, RunData, RunFolder
from loadgen.runs.parquet_sizes import unpacked_sizes
from loadgen.runs.record_file import MAX_RECORDS

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
    "t_answer": pl.Int64,
    **dict.fromkeys(("reasoning_tokens", "tpot_tokens"), pl.Int32),
    "tpot_basis": pl.String,
    "finish_reason": pl.String,
    "http_status": pl.Int32,
    **dict.fromkeys(("error", "error_detail", "text"), pl.String),
}


MAX_BYTES = 4 << 30
MAX_UNPACKED = 256 << 20
"""Bytes of texts and lists beside a hundredfold of the file: Parquet keeps a text of many rows once."""


def write_parquet(folder: RunFolder, data: RunData | None = None) -> Path:
    """Write a run's `requests.parquet` from its records, which are read when they are not given; returns its path.

    Raises:
        UserError: it cannot be written. `requests.jsonl` stays as it is.
    """
    data = data or folder.load()
    rows = [
        {**{name: _storable(value) for name, value in record.to_dict().items()}, "phase": phase}
        for block in data.blocks
        for record, phase in zip(block.records, block.cut.phases, strict=True)
    ]
    frame = pl.DataFrame(rows, schema=SCHEMA)
    path = folder.parquet_path
    packed = io.BytesIO()  # written by ourselves: on a full disk polars speaks of a broken transport
    frame.write_parquet(packed)
    try:
        atomic_write(path, packed.getvalue())
    except OSError as error:
        raise cannot_be_written(path, error, f"The records are safe in {JSONL}.") from None
    return path


def read_parquet(path: Path) -> list[RequestRecord]:
    """Read the records back. Raises UserError: it cannot be read, or holds something else."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            known = _checked(file)
            file.seek(0)
            return [RequestRecord.from_dict(row) for row in pl.read_parquet(file, columns=known).iter_rows(named=True)]
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: not a readable file of records: {what}. Copy it anew from where it ran.") from None


def _checked(file: BinaryIO) -> list[str]:
    """The columns to read. Raises ValueError: it is packed so well that its rows would take the memory."""
    # First by what it says of itself: the library builds a list to tell its length.
    most = MAX_UNPACKED + 100 * os.fstat(file.fileno()).st_size
    _check_size(*unpacked_sizes(file), most)
    file.seek(0)
    scanned = pl.scan_parquet(file)
    types = {name: kind for name, kind in scanned.collect_schema().items() if name in SCHEMA}
    if not types:
        raise ValueError("it has none of a record's columns")
    sizes = [pl.lit(0, pl.Int64)]
    for name, kind in types.items():
        if kind == pl.String:
            sizes.append(pl.col(name).str.len_bytes().cast(pl.Int64).sum())
        elif isinstance(kind, pl.List) and kind.inner.is_numeric():
            sizes.append(8 * pl.col(name).list.len().cast(pl.Int64).sum())
        elif not kind.is_numeric() and kind != pl.Null:
            raise ValueError(f"its column {name} is of type {kind}")
    rows, unpacked = scanned.select(pl.len(), pl.sum_horizontal(sizes).alias("size")).collect().row(0)
    _check_size(rows, unpacked, most)
    return [*types]


def _check_size(rows: int, unpacked: int, most: int) -> None:
    if rows > MAX_RECORDS:
        raise ValueError(f"it has over {MAX_RECORDS} rows")
    if unpacked > most:
        raise ValueError(f"its rows would take {unpacked >> 20:,} MiB")


def _storable(value: Any) -> Any:
    """Replace what UTF-8 cannot hold: JSON may carry half of a surrogate pair, Parquet may not."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


assert set(SCHEMA) - {"phase"} == set(FIELD_NAMES), "the parquet schema must name every field of a record"  # noqa: S101
