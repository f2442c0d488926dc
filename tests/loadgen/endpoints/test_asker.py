"""The thin edge: what the SDK makes of real answers, in the shapes of several engines."""

from __future__ import annotations

import json

import pytest

from loadgen.endpoints.answers import Refused
from loadgen.endpoints.asker import Asker
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.settle import settle
from loadgen.engines.needs import Needs
from loadgen.errors import UserError
from tests.fault_server import FaultServer
from tests.loadgen.endpoints.odd_server import Handler, served


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


def keyed(url):
    return Asker(Endpoint(name="a", kind="openai", base_url=url, model="m", api="chat", api_key="s3cret-key"))


class Elsewhere(Handler):
    """Sends a cookie with an answer, or all that is asked for to another server."""

    other = ""

    def end_headers(self):
        if self.other:
            self.send_header("Location", self.other + self.path)
        self.send_header("Set-Cookie", "who=you; Path=/")
        super().end_headers()


def test_a_key_follows_no_redirect():
    with served(Handler) as other, served(Elsewhere, other=other.url, refuse=lambda *_: (307, "")) as server:
        asker = keyed(server.url)
        for ask in (asker.ask, asker.stream):
            with pytest.raises(
                Refused, match=rf"^HTTP 307: redirected to {other.url}/v1/chat/completions, which"
            ) as told:
                ask("one", {"max_tokens": 2})
            assert not told.value.by_status
        assert len(server.seen) == 2 and not other.seen
        asker.close()


def test_nothing_of_the_environment_is_sent_and_no_cookie_is_kept(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: secret-of-mine\nauthorization: of-mine")
    with served(Elsewhere) as server:
        asker = keyed(server.url)
        asker.ask("one", {"max_tokens": 2})
        asker.stream("one", {"max_tokens": 2})
        asker.close()
    for _, headers, _ in server.seen:
        assert not [value for value in headers.values() if "mine" in value]
        assert not {"openai-organization", "openai-project", "cookie"} & {name.lower() for name in headers}
        assert {name.lower(): value for name, value in headers.items()}["authorization"] == "Bearer s3cret-key"


def echo(where, headers, body):
    return 400, json.dumps({"error": {"message": f"You sent {headers['Authorization']} and {headers['X-Tenant']}."}})


def test_no_text_repeats_a_key_that_an_engine_echoes(monkeypatch):
    monkeypatch.setenv("TENANT", 'ten"ant')
    needs = Needs(headers=("X-Tenant=env:TENANT",))
    with served(Handler, refuse=echo) as server:
        endpoint = Endpoint("a", "openai", server.url, "m", "chat", api_key="s3cret-key", needs=needs)
        asker = Asker(endpoint)
        for ask in (asker.ask, asker.stream):
            with pytest.raises(Refused, match=r"You sent … and …\.") as refused:
                ask("one", {"max_tokens": 2})
            assert "s3cret" not in str(refused.value)
        asker.close()
        with pytest.raises(UserError, match=r"You sent … and …\."):
            endpoint.client().call("GET", "/v1/models")
        assert "You sent … and …." in endpoint.client().post(endpoint.route(), endpoint.prompt("one"))[1]
        with pytest.raises(UserError, match=r"You sent … and …\."):
            settle(endpoint)


class Odd(Handler):
    """Answers all that is asked with one body, in the coding that is given."""

    coding, text = "identity", ""

    def do_GET(self):
        self._whole(200, self.text)

    def end_headers(self):
        self.send_header("Content-Encoding", self.coding)
        super().end_headers()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"coding": "gzip"}, r"compressed \(gzip\)"),
        ({"text": "[" * 200_000}, "nested too deeply"),
        ({"text": " " * 70_000}, "has no end"),
    ],
    ids=["coded", "deep", "large"],
)
def test_what_an_engine_tells_of_itself_is_bounded(given, why, monkeypatch):
    monkeypatch.setattr("loadgen.endpoints.endpoint.MAX_WHOLE_ANSWER", 60_000 if why == "has no end" else 1 << 20)
    with served(Odd, **given) as server, pytest.raises(UserError, match=why):
        Endpoint("a", "openai", server.url, "m", "chat").client().call("GET", "/v1/models")
