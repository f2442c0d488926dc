"""Request records: round trips through every form in which they travel."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.record import FIELD_NAMES, REJECTIONS, ErrorKind, RequestRecord
from tests.loadgen.records import any_record, record


@settings(deadline=None)
@given(any_record)
def test_round_trip_through_plain_data_and_json(one):
    data = one.to_dict()
    assert list(data) == [field.name for field in dataclasses.fields(RequestRecord)] == list(FIELD_NAMES)
    assert RequestRecord.from_dict(data) == one
    assert RequestRecord.from_dict(json.loads(json.dumps(data))) == one


@settings(deadline=None)
@given(any_record)
def test_round_trip_through_msgpack_as_locust_sends_it(one):
    msgpack = pytest.importorskip("msgpack")
    assert RequestRecord.from_dict(msgpack.unpackb(msgpack.packb(one.to_dict()), strict_map_key=False)) == one


@settings(deadline=None)
@given(any_record, st.dictionaries(st.text(), st.integers()))
def test_fields_of_a_later_version_are_ignored(one, extra):
    assert RequestRecord.from_dict({**extra, **one.to_dict(), "new_field": [1]}) == one


REQUIRED = [f.name for f in dataclasses.fields(RequestRecord) if f.default is f.default_factory is dataclasses.MISSING]


def test_what_is_required_is_what_every_request_has():
    assert set(REQUIRED) == {
        *("run_id", "block", "engine", "model", "cell", "api", "worker", "user", "index"),
        *("t_intended", "t_send", "t_done", "wall_offset_ns", "prompt_tokens_wanted", "output_tokens_wanted"),
    }


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_required_field_is_named(name):
    data = record().to_dict()
    del data[name]
    with pytest.raises(ValueError, match=name):
        RequestRecord.from_dict(data)


def test_records_do_not_share_their_offsets():
    one, two = RequestRecord.from_dict(record().to_dict()), record()
    one.event_offsets_ns.append(1)
    assert not two.event_offsets_ns and not record().event_offsets_ns


def test_ok_and_aborted():
    assert (record().ok, record().aborted) == (True, False)
    assert (record(error="stall").ok, record(error="stall").aborted) == (False, False)
    assert (record(error=ErrorKind.ABORTED).ok, record(error=ErrorKind.ABORTED).aborted) == (False, True)


def test_every_error_kind_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "methodology.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", text))
    assert {*ErrorKind, *REJECTIONS} - {"http_503"} <= documented
