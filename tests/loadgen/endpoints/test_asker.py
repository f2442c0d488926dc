"""The thin edge: what the SDK makes of real answers, in the shapes of several engines."""

from __future__ import annotations

import pytest

from loadgen.endpoints.answers import Refused
from loadgen.endpoints.asker import Asker
from loadgen.endpoints.endpoint import Endpoint
from tests.fault_server import FaultServer


def asker(server, fault="normal", api="chat"):
    return Asker(Endpoint(name="a", kind="openai", base_url=server.url, model=f"fault:{fault}", api=api))


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_whole_answer(server, api):
    answer = asker(server, api=api).ask("one two three", {"max_tokens": 4})
    assert answer.text == " tok0 tok1 tok2 tok3"
    assert (answer.prompt_tokens, answer.output_tokens) == (8 if api == "chat" else 4, 4)
    assert answer.cached_tokens is None and answer.tokens == ()
    assert answer.elapsed_ms > 0


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("normal", "event of its own"),
        ("normal?style=ksana", "finish event"),
        ("normal?usage=last", "last content event"),
        ("normal?usage=always", "every event"),
        ("normal?usage=none", "nowhere"),
    ],
)
def test_where_usage_sits(server, fault, place):
    answer = asker(server, fault).stream("one", {"max_tokens": 6})
    assert answer.usage == place
    assert answer.output_tokens == (None if place == "nowhere" else 6)
    assert answer.events == 6
    assert answer.role_lead_ms is not None and answer.role_lead_ms >= 0


def test_several_tokens_an_event(server):
    answer = asker(server, "normal?tokens_per_event=3").stream("one", {"max_tokens": 6})
    assert (answer.events, answer.output_tokens, len(answer.text.split())) == (2, 6, 6)


@pytest.mark.parametrize("delta", ["reasoning", "reasoning_content"])
def test_thoughts_are_text(server, delta):
    answer = asker(server, f"normal?delta={delta}").stream("one", {"max_tokens": 3})
    assert (answer.text, answer.events) == (" tok0 tok1 tok2", 3)


def test_completions_have_no_role_event(server):
    assert asker(server, api="completions").stream("one", {"max_tokens": 3}).role_lead_ms is None


@pytest.mark.parametrize("name", ["ksana-c451219-chat-stream.sse", "vllm-0.24.0-chat-stream.sse"])
def test_captured_streams(server, name):
    answer = asker(server, f"fixture?name={name}").stream("one", {"max_tokens": 6})
    ksana = name.startswith("ksana")
    assert answer.usage == ("finish event" if ksana else "event of its own")
    assert answer.role_lead_ms is not None
    if ksana:
        assert answer.text.startswith("!!!!!!")


@pytest.mark.parametrize(
    ("fault", "by_status"),
    [("http?status=400", True), ("http?status=500", False), ("http?status=503&html=1", False), ("not_http", False)],
)
def test_refusals(server, fault, by_status):
    for ask in (asker(server, fault).ask, asker(server, fault).stream):
        with pytest.raises(Refused) as caught:
            ask("one", {"max_tokens": 2})
        assert caught.value.by_status == by_status


@pytest.mark.parametrize("fault", ["rst", "fin", "garbage", "error_event", "bad_chunk"])
def test_broken_streams_are_refusals(server, fault):
    with pytest.raises(Refused):
        asker(server, fault).stream("one", {"max_tokens": 6})


def test_an_engine_that_hangs_is_asked_once(server, monkeypatch):
    monkeypatch.setattr("loadgen.endpoints.asker.ANSWER_LIMIT_S", 0.2)
    hung = asker(server, "slow_head?seconds=2")
    before = len(server.served)
    for _ in range(3):
        with pytest.raises(Refused, match=r"no answer within 0\.2 s"):
            hung.ask("one", {"max_tokens": 2})
    assert len(server.served) == before + 1


def test_nobody_there():
    endpoint = Endpoint(name="a", kind="openai", base_url="http://127.0.0.1:9", model="m", api="chat")
    with pytest.raises(Refused):
        Asker(endpoint).ask("one", {})
