"""The splitter against an independent reading of the standard; the decoder against full decoding."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loadgen.stream.event_reader import texts_of
from loadgen.stream.sse import EventDecoder, SSEError, SSESplitter
from loadgen.stream.stream_event import CONTENT, DONE, EMPTY, NamedPayload, classify

DATA = Path(__file__).parents[2] / "data"


def oracle(stream: bytes) -> list[tuple[str, str]]:
    """(event name, data) of each event, read from the whole stream in the standard's own steps."""
    text = stream.decode("latin-1")
    if text.startswith("\xef\xbb\xbf"):
        text = text[3:]
    lines = re.split("\r\n|\n|\r", text)
    events, data, event = [], "", ""
    for line in lines[:-1]:  # what follows the last line end is not a line yet
        if line == "":
            if data != "":
                events.append((event, data[:-1]))
            data, event = "", ""
            continue
        if line[0] == ":":
            continue
        name, value = line, ""
        if ":" in line:
            name, value = line[: line.index(":")], line[line.index(":") + 1 :]
            if value[:1] == " ":
                value = value[1:]
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event = value.encode("latin-1").decode("utf-8", "replace")
    return events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def split(parts: list[bytes]) -> list[tuple[str, str]]:
    splitter = SSESplitter()
    return [
        (getattr(payload, "event", ""), payload.decode("latin-1")) for part in parts for payload in splitter.feed(part)
    ]


ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
values = st.sampled_from([b"{}", b'{"a": "b"}', b" two", b"", b"[DONE]", b"x:y", "北京".encode(), b"a\\nb"])
fields = st.sampled_from(
    [b"data: ", b"data:", b"data", b"event: ", b"event:", b"event", b"id: ", b"retry: ", b": ", b":", b"dat: ", b"",
     b"data : ", b" data: ", b"\xef\xbb\xbfdata: "]
)  # fmt: skip
lines = st.builds(lambda name, value, end: name + value + end, fields, values, ends)
blank = st.builds(lambda end: end, ends)
streams = st.builds(
    lambda bom, parts, rest: (b"\xef\xbb\xbf" if bom else b"") + b"".join(parts) + rest,
    st.booleans(),
    st.lists(st.one_of(lines, blank, st.just(b"data: {}\n\n")), max_size=25),
    st.sampled_from([b"", b"data: half", b"\r", b"data"]),
)

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for slow machines


@patient
@given(stream=streams, places=st.lists(st.integers(0, 500), max_size=20))
@example(stream=b"data: a\r\n\r\ndata: b\r\n\r\n", places=[8, 9, 10])
@example(stream=b"\xef\xbb\xbfdata: a\n\n", places=[1, 2])
@example(stream=b"data\n\ndata\ndata\n\ndata:", places=[])
def test_any_split_gives_the_events_of_the_standard(stream: bytes, places: list[int]) -> None:
    assert split(cut(stream, places)) == oracle(stream)


@patient
@given(stream=st.binary(max_size=60).map(lambda b: b.replace(b"\x00", b"\n").replace(b"\x01", b"data: ")))
def test_any_bytes_one_at_a_time(stream: bytes) -> None:
    assert split([stream[i : i + 1] for i in range(len(stream))]) == oracle(stream)
    assert split([stream]) == oracle(stream)


@pytest.mark.parametrize("name", ["vllm-0.24.0-chat-stream.sse", "ksana-c451219-chat-stream.sse"])
def test_every_two_way_split_of_captured_streams(name: str) -> None:
    stream = (DATA / name).read_bytes()
    whole = oracle(stream)
    assert len(whole) == stream.count(b"data: ")
    for place in range(len(stream) + 1):
        assert split([stream[:place], stream[place:]]) == whole


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        (b"data: [DONE]", b"[DONE]"),
        (b"data: [DONE]\n", b"[DONE]"),
        (b"data: [DONE]\r\n", b"[DONE]"),
        (b"data: a\ndata: b", b"a\nb"),
        (b": comment", None),
        (b"", None),
        (b"\n", None),
    ],
)
def test_close_gives_what_no_blank_line_ended(tail: bytes, left: bytes | None) -> None:
    splitter = SSESplitter()
    assert splitter.feed(b"data: x\n\n" + tail) == [b"x"]
    assert splitter.close() == left
    assert splitter.close() is None


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_endless_event_is_refused(step: int) -> None:
    stream = b"data: " + b"x" * 200 + b"\n\n"
    limit = len(stream) - 2

    def feed(maximum: int) -> list[bytes]:
        splitter = SSESplitter(max_event_bytes=maximum)
        return [p for i in range(0, len(stream), step) for p in splitter.feed(stream[i : i + step])]

    assert feed(limit) == [b"x" * 200]
    with pytest.raises(SSEError, match="larger than"):
        feed(limit - 1)


def test_a_large_event_in_small_reads_is_not_quadratic() -> None:
    splitter = SSESplitter()
    splitter.feed(b"data: ")
    for _ in range(200_000):  # 3.2 MB: minutes if each read copied or searched what is held
        assert splitter.feed(b"0123456789abcdef") == []
    assert len(splitter.feed(b"\n\n")[0]) == 3_200_000


def chunk(choice: object, **more: object) -> bytes:
    return json.dumps({"id": "x", "choices": [choice], **more}).encode()


def delta(**fields: object) -> bytes:
    return chunk({"index": 0, "delta": fields, "finish_reason": None})


def test_kinds_of_events() -> None:
    assert classify(b"[DONE]") is DONE
    for nothing in (b"", b" ", b"{}", delta(role="assistant", content=""), delta(), delta(content=None),
                    delta(tool_calls=[]), chunk({"index": 0, "text": ""}), b'{"choices":[],"usage":null}',
                    b'{"choices":null,"error":null}'):  # fmt: skip
        assert classify(nothing) == EMPTY, nothing
    for payload, text in [
        (delta(content="a"), "a"),
        (delta(reasoning_content="r"), "r"),
        (delta(reasoning="r", reasoning_content="r"), "r"),
        (delta(reasoning="r", content="c"), "rc"),
        (delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]), "f"),
        (delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]), '{"a"'),
        (delta(content=[{"type": "text", "text": "part"}]), "part"),
        (chunk({"index": 3, "text": "t"}), "t"),
        (b'{"choices":[{"index":0,"text":""},{"index":1,"text":"b"}]}', "b"),
    ]:
        event = classify(payload)
        assert (event.content, event.text, event.error, event.finish_reason) == (True, text, None, None), payload


def test_one_event_may_be_everything_at_once() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    event = classify(chunk({"index": 0, "delta": {"content": "z"}, "finish_reason": "length"}, usage=usage))
    assert (event.content, event.finish_reason, event.usage, event.text) == (True, "length", usage, "z")
    event = classify(b'{"choices":[],"usage":{"prompt_tokens":3}}')
    assert (event.content, event.usage) == (False, {"prompt_tokens": 3})


def test_errors() -> None:
    event = classify(b'{"error":{"message":"out of memory","type":"ServerError","code":500}}')
    assert (event.error_kind, event.error) == ("stream_error", "out of memory (ServerError, 500)")
    event = classify(b'{"object":"error","message":"old","code":400}')
    assert (event.error_kind, event.error) == ("stream_error", "old (400)")
    assert classify(b'{"error":"plain"}').error == "plain"
    for payload in (b"boom", b'{"message":"boom"}'):
        named = SSESplitter().feed(b"event: error\ndata: " + payload + b"\n\n")[0]
        assert (classify(named).error_kind, classify(named).error) == ("stream_error", "boom")
        assert EventDecoder().decode(named) == classify(named)
    for bad in (b'{"choices":[{"te', b"12", b"[]", b"null", b"\xff", b"[" * 100_000):
        assert classify(bad).error_kind == "bad_event", bad[:20]


def plain(event: object) -> object:
    """An event without its text, which the decoder leaves out where it need not decode."""
    return [getattr(event, name) for name in ("content", "finish_reason", "usage", "error_kind", "done")]


def test_framing_is_learnt_and_text_cannot_imitate_it() -> None:
    head, tail = '{"id":"x","choices":[{"index":0,"delta":{"content":"', '"},"finish_reason":null}]}'
    decoder = EventDecoder()
    assert decoder.decode((head + "first" + tail).encode()).text == "first"
    for text in (" b", "\\n", '\\"usage\\":{', '\\"finish_reason\\":\\"stop\\"', "\\u5317", "北", "\\\\"):
        assert decoder.decode((head + text + tail).encode()) is CONTENT, text
    assert decoder.decoded == 1
    finish = head + 'x"},"finish_reason":"stop","delta":{"content":"' + tail
    for payload in (
        finish.encode(),
        (head + tail).encode(),
        (head + tail[1:]).encode(),  # the frame's two halves overlap
        (head + "bad \\x escape" + tail).encode(),
        (head + "odd\\" + tail).encode(),
        (head + "raw \x01" + tail).encode(),
    ):
        assert plain(decoder.decode(payload)) == plain(classify(payload)), payload
    named = NamedPayload((head + "text" + tail).encode(), "error")
    assert decoder.decode(named).error_kind == "stream_error"


texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(['"usage":{', '"finish_reason":"stop"', '"error"', "", '{"content":"', "\\", '\\"', "\ud83d"]),
)
usages = st.sampled_from([None, {"completion_tokens": 5}])


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    finish = draw(st.sampled_from([None, None, None, "stop", ""]))
    choices = []
    for index in range(draw(st.sampled_from([1, 1, 1, 0, 2]))):
        keys = draw(st.sampled_from([["content"], ["reasoning"], ["content", "reasoning_content"], ["role"]]))
        body = {"delta": {key: draw(texts) for key in keys}} if draw(st.booleans()) else {"text": draw(texts)}
        extra = draw(st.sampled_from([{}, {"logprobs": {"content": [{"token": draw(texts)}]}}]))
        choices.append({"index": index, **body, **extra, "finish_reason": finish})
    message = {"id": draw(st.sampled_from(["a", 'q"content":"'])), "choices": choices, "usage": draw(usages)}
    if draw(st.integers(0, 9)) == 0:
        message["error"] = draw(st.sampled_from([None, {"message": "m"}]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps(message, separators=separators, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")


@patient
@given(st.lists(payloads(), max_size=12))
def test_the_short_way_agrees_with_full_decoding(stream: list[bytes]) -> None:
    decoder = EventDecoder()
    for payload in stream:
        event, whole = decoder.decode(payload), classify(payload)
        assert plain(event) == plain(whole)
        text = texts_of([decoder.text_inside(payload)])[0] if event is CONTENT else event.text
        assert text == whole.text


@patient
@given(st.lists(texts, min_size=1, max_size=12), st.sampled_from(["content", "reasoning", "text"]))
def test_a_stream_of_one_shape_agrees_with_full_decoding(words: list[str], key: str) -> None:
    decoder = EventDecoder()
    for word in words:
        choice = {"text": word} if key == "text" else {"delta": {key: word}}
        payload = json.dumps({"choices": [{**choice, "finish_reason": None}]}).encode()
        assert plain(decoder.decode(payload)) == plain(classify(payload))


@pytest.mark.parametrize(
    ("name", "content", "finish", "decoded_at_most"),
    [("vllm-0.24.0-chat-stream.sse", 5, "length", 6), ("ksana-c451219-chat-stream.sse", 1, "stop", 4)],
)
def test_captured_streams(name: str, content: int, finish: str, decoded_at_most: int) -> None:
    decoder = EventDecoder()
    events = [decoder.decode(payload) for payload in SSESplitter().feed((DATA / name).read_bytes())]
    assert not events[0].content
    assert sum(event.content for event in events) == content  # vLLM: the sixth token made no text of its own
    assert [event.finish_reason for event in events if event.finish_reason] == [finish]
    usage = [event.usage for event in events if event.usage]
    assert usage == [{"prompt_tokens": 10, "total_tokens": 16, "completion_tokens": 6}]
    assert events[-1].done
    assert decoder.decoded <= decoded_at_most
