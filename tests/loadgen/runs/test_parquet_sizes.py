"""A `requests.parquet` of a few kilobytes that would take gigabytes: refused before anything of it is built."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from loadgen.errors import UserError
from loadgen.runs.parquet import SCHEMA, read_parquet, write_parquet
from loadgen.runs.parquet_sizes import _Compact, unpacked_sizes
from tests.loadgen.records import record
from tests.loadgen.runs.test_folder import RunFolder, block, manifest, write

TOP = Path(__file__).resolve().parents[3]
MOST_MB = 400
"""Of a process that refuses such a file: it has the library, and no more."""
READ = """
import sys
from pathlib import Path
from loadgen.errors import UserError
from loadgen.runs.parquet import read_parquet
try:
    read_parquet(Path(sys.argv[1]))
except UserError as error:
    print(error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def a_list(path: Path, numbers: int) -> Path:
    """A file of one record with a list of so many zeros."""
    frame = pl.DataFrame({"run_id": ["a"], "event_offsets_ns": [pl.zeros(numbers, dtype=pl.Int64, eager=True)]})
    frame.write_parquet(path)
    return path


def again(path: Path, times: int) -> Path:
    """The same file with its row group named so often: they lie on top of one another."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    read = _Compact(footer)
    number = 0
    while number != 4:
        head = read._byte()
        number += head >> 4
        begin = read.place
        read._value(head & 15, 0)
    assert footer[begin] == 0x1C, "a list of one structure"
    count = bytes((0xFC, times & 127 | 128, times >> 7))
    footer = footer[:begin] + count + footer[begin + 1 : read.place] * times + footer[read.place :]
    path.write_bytes(data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def refused(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], cwd=TOP, capture_output=True, text=True, timeout=300, check=True
    )
    *told, peak = done.stdout.splitlines()
    return "\n".join(told), int(peak) >> 10


@pytest.mark.parametrize("kind", ["one list", "row groups on top of one another"])
def test_millions_of_numbers_are_not_built_to_be_refused(tmp_path, kind):
    path = tmp_path / "requests.parquet"
    path = a_list(path, 40_000_000) if kind == "one list" else again(a_list(path, 1_000_000), 400)
    assert path.stat().st_size < 200_000
    told, peak = refused(path)
    assert ("its rows would take 305 MiB" if kind == "one list" else "its rows would take 3,05") in told
    assert peak < MOST_MB


def test_the_sizes_are_those_of_what_it_holds(tmp_path):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    write(folder.records_path, [record(block="b", index=number, text=str(number)) for number in range(50)])
    path = write_parquet(folder)
    with path.open("rb") as file:
        rows, size = unpacked_sizes(file)
    assert rows == 50 == len(read_parquet(path))
    assert 50 * 8 * len(SCHEMA) <= size < 100_000


def test_a_file_that_was_changed_anywhere_is_read_or_refused(tmp_path):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    write(folder.records_path, [record(block="b", index=at, text="x") for at in range(3)])
    whole = write_parquet(folder).read_bytes()
    path, chance = tmp_path / "changed.parquet", random.Random(4)
    length = int.from_bytes(whole[-8:-4], "little")
    for number in range(1000):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data) - 8 - length if number % 2 else 0, len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data))] if number % 10 == 0 else data)
        with path.open("rb") as file, contextlib.suppress(ValueError):
            assert unpacked_sizes(file)[1] >= 0
    for data in (b"", b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b"\x15" * 100 + (100).to_bytes(4, "little") + b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a readable file of records: it is no Parquet file"):
            read_parquet(path)
