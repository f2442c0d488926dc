"""A share of the million mutated streams of `benchmarks.stream_fuzz`: another one each time."""

import random

import orjson

from benchmarks.stream_fuzz import records
from loadgen.record import ErrorKind, RequestRecord
from loadgen.runs.record_file import mistyped


def test_whatever_comes_each_request_ends_in_a_record_that_can_be_kept():
    seed = random.randrange(2**32)
    kinds = set()
    for record in records(1500, seed):
        assert mistyped(RequestRecord.from_dict(orjson.loads(orjson.dumps(record, list)))) is None, seed
        kinds.add(record.error)
    assert {None, ErrorKind.BAD_EVENT, ErrorKind.CONNECTION_CUT, ErrorKind.BAD_RESPONSE} <= kinds, seed
