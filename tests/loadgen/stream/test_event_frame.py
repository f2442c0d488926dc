"""Recognised events must be exactly those that the whole way (HTTP parser, splitter, JSON) finds."""

from __future__ import annotations

import json
import re
from itertools import accumulate, takewhile

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.record import RequestRecord
from loadgen.stream.event_frame import EventFrame
from loadgen.stream.event_reader import EventReader
from loadgen.stream.http_parser import ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = (b'{"id":"a","choices":[{"text":"', b'","finish_reason":null}]}')

texts = st.one_of(
    st.text(min_size=1, max_size=12).map(lambda text: json.dumps(text)[1:-1]),
    st.text(min_size=1, max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1]),
    st.sampled_from(['\\"', "\\\\", "\\u0041", '","finish_reason":null}]}', "x\\", "\\u00", "", '"', "a\nb", "\\x"]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def event(text: bytes) -> bytes:
    return b"data: " + FRAME[0] + text + FRAME[1] + b"\n\n"


proper = st.one_of(
    texts.map(event).map(chunk),
    st.sampled_from(
        [
            chunk(b"data: [DONE]\n\n"),
            chunk(b": ping\n\n"),
            chunk(event(b"one") + event(b"two")),
            chunk(b'data: {"id":"a","choices":[{"text":"x","finish_reason":"length"}]}\n\n'),
            b"5;x=y\r\nabcde\r\n",
        ]
    ),
)
improper = st.sampled_from(
    [chunk(event(b"late"))[:-4] + b"\r\n", b"0x5\r\nabcde\r\n", b"+5\r\nabcde\r\n", b"0\r\n\r\n", b"1_0\r\n"]
    + [sign + chunk(event(b"signed")) for sign in (b"0x", b"0X", b"+", b" ", b"0_", b"0")]
)
chunks = st.one_of(proper, improper)


def content_by_json(body: bytes) -> list[bool]:
    """Oracle: of each event in a body, whether JSON finds text in it."""
    found = []
    for block in body.split(b"\n\n"):
        try:
            message = json.loads(block.removeprefix(b"data: ").decode("utf-8", "replace"))
        except ValueError:
            found.append(False)
            continue
        choices = message["choices"]
        found.append(bool(choices and choices[0]["text"]) and choices[0]["finish_reason"] is None)
    return found


class Body:
    """Oracle: llhttp alone, one byte string in."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        httptools.HttpResponseParser(self).feed_data(HEAD + data)

    def on_body(self, data: bytes) -> None:
        self.body += data


@given(st.lists(chunks, min_size=1, max_size=8), st.sampled_from([1, 70]), st.data())
def test_what_is_recognised_is_what_the_parsers_find(parts: list[bytes], times: int, data: st.DataObject) -> None:
    parts *= times
    raw = b"".join(parts)
    size = data.draw(st.integers(0, len(raw)))
    events, used = EventFrame(*FRAME).match(bytearray(raw), size)
    # Bytes taken are whole chunks, each of which llhttp and JSON read as one event with text.
    body = Body(raw[:used]).body
    assert content_by_json(body[:-2]) == [True] * events if used else events == 0
    # All that can be recognised at the front is.
    ends = list(accumulate(map(len, takewhile(_is_framed, parts)), initial=0))
    assert used == max(end for end in ends if end <= size)


def _is_framed(part: bytes) -> bool:
    found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})\r\n(.*)\r\n", part, re.DOTALL)
    return found is not None and int(found[1], 16) == len(found[2]) and _is_event(found[2])


def _is_event(inner: bytes) -> bool:
    before, after = b"data: " + FRAME[0], FRAME[1] + b"\n\n"
    if not (inner.startswith(before) and inner.endswith(after)):
        return False
    text = inner[len(before) : -len(after)]
    try:
        json.loads(b'"' + text.decode("utf-8", "replace").encode() + b'"')
    except ValueError:
        return False
    return len(inner) >= len(before) + len(after) and bool(text)


@pytest.mark.parametrize("count", [1, 2, 3, 200])
def test_many_at_once_are_all_counted(count: int) -> None:
    raw = b"".join(chunk(event(b"word %d" % i)) for i in range(count))
    assert EventFrame(*FRAME).match(bytearray(raw + b"tail"), len(raw)) == (count, len(raw))
    torn = raw + chunk(event(b"torn"))[:-1]
    assert EventFrame(*FRAME).match(torn, len(torn)) == (count, len(raw))


@pytest.mark.parametrize("bad", [b"\\", b'a"b', b"\x01", b"", b"\\u12"])
def test_a_bad_one_among_many_ends_the_run(bad: bytes) -> None:
    parts = [chunk(event(b"one")), chunk(event(b"two")), chunk(event(bad)), chunk(event(b"four"))]
    raw = b"".join(parts)
    assert EventFrame(*FRAME).match(raw, len(raw)) == (2, len(parts[0] + parts[1]))


@given(st.lists(proper, min_size=1, max_size=6), st.lists(st.integers(1, 40), max_size=30))
def test_the_parser_knows_when_it_stands_between_chunks(parts: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(parts)
    ends = {sum(map(len, parts[:count])) for count in range(1, len(parts) + 1)}
    parser = ResponseParser()
    parser.feed(HEAD)
    assert not parser.between_chunks
    at = 0
    while at < len(raw):
        step = cuts.pop() if cuts else 7
        parser.feed(raw[at : at + step])
        at = min(at + step, len(raw))
        assert parser.between_chunks == (at in ends)


@given(st.lists(proper, min_size=1, max_size=10), st.lists(st.integers(1, 300), max_size=40))
def test_skimming_changes_no_record(parts: list[bytes], cuts: list[int]) -> None:
    raw = b"".join([chunk(event(b"first")), *parts, b"0\r\n\r\n"])
    assert _record(raw, list(cuts), skim=True) == _record(raw, list(cuts), skim=False)


def _record(raw: bytes, cuts: list[int], *, skim: bool) -> dict[str, object]:
    record = RequestRecord("r", "b", "e", "m", "c", "a", "w", 0, 0, 0, 0, 0, 0, 1, 1)
    reader = EventReader(record, 0, kernel=True, keep_text=False)
    parser = ResponseParser()
    parser.feed(HEAD)
    at = 0
    t = 0
    while at < len(raw):
        step = cuts.pop() if cuts else 450
        data = raw[at : at + step]
        at += step
        t += 10
        while data:
            if skim and parser.between_chunks:
                data = data[reader.skim(data, len(data), t, t + 1) :]
            end = data.find(b"\n\r\n") + 3 if skim and b"\n\r\n" in data else len(data)
            content = parser.feed(data[:end])
            data = data[end:]
            if content:
                reader.feed(content, t, t + 1)
    if parser.complete:
        reader.end(t, t + 1)
    reader.close()
    return record.to_dict() | {"done": reader.done, "complete": parser.complete, "problem": parser.problem}
