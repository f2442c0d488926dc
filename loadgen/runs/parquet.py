"""`requests.parquet` of a run folder: one row a request, with its phase; written when a run is closed.

A folder that was handed on may hold it alone: all that a record holds is in it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl

from loadgen.errors import UserError
from loadgen.files import atomic_write, cannot_be_written, open_regular
from loadgen.record import FIELD_NAMES, RequestRecord
from loadgen.runs.folder import JSONL, RunData, RunFolder
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
    "finish_reason": pl.String,
    "http_status": pl.Int32,
    **dict.fromkeys(("error", "error_detail", "text"), pl.String),
}


MAX_BYTES = 4 << 30


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
            if pl.scan_parquet(file).select(pl.len()).collect().item() > MAX_RECORDS:
                raise ValueError(f"it has over {MAX_RECORDS} rows")
            file.seek(0)
            return [RequestRecord.from_dict(row) for row in pl.read_parquet(file).iter_rows(named=True)]
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        what = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable file of records: {what}. It goes with {JSONL}.") from None


def _storable(value: Any) -> Any:
    """Replace what UTF-8 cannot hold: JSON may carry half of a surrogate pair, Parquet may not."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


assert set(SCHEMA) - {"phase"} == set(FIELD_NAMES), "the parquet schema must name every field of a record"  # noqa: S101
