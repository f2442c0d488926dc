"""Endpoints that want to be asked in their own way: found by asking, or given."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from loadgen.cli.options import EndpointNeeds, Endpoints
from loadgen.endpoints import settle as settling
from loadgen.endpoints.asker import Asker
from loadgen.endpoints.seats import Seat, read_seats, seat_of, seats_json
from loadgen.endpoints.tokens import make_recipe
from loadgen.engines.needs import Needs, parse_given, without_values
from loadgen.errors import UserError
from loadgen.scenario.model import Scenario
from tests.loadgen.endpoints.odd_server import Handler, Proxy, private_authority, served


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(settling, "_found", {})
    monkeypatch.setenv("THE_KEY", "s3cret")
    for name in [name for name in os.environ if name.startswith("BAKEOFF_HEADER_")]:
        monkeypatch.delenv(name)


def only(path):
    return lambda where, headers, body: None if where.startswith(path) else (404, f"no such route {where}")


def without(field, status=400, text=None):
    return lambda where, headers, body: (status, text or f"unknown field {field}") if field in body else None


def with_key(name, value="s3cret"):
    return lambda where, headers, body: None if headers.get(name) == value else (401, "no key")


def streams_only(where, headers, body):
    return None if not body or body.get("stream") else (400, "stream must be true")


def modern(where, headers, body):
    """As OpenAI's newest models have it: two fields are refused, one after the other."""
    if "max_tokens" in body:
        return 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    return (400, "Unsupported value: 'temperature' does not support 0") if "temperature" in body else None


CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
KINDS = {
    "plain": (None, {}, {"stream_only": False}, CHAT),
    "completions only": (only(TEXT), {"model": "m"}, {"stream_only": False}, TEXT),
    "responses only": (only(RESPONSES), {"model": "m"}, {"stream_only": False}, RESPONSES),
    "another path": (only("/api/v3/"), {}, {"api_path": "/api/v3", "stream_only": False}, "/api/v3/chat/completions"),
    "no /v1": (only("/chat/"), {"model": "m"}, {"api_path": "/", "stream_only": False}, "/chat/completions"),
    "another path and API": (
        *(only("/openai/v1/completions"), {"model": "m"}),
        *({"api_path": "/openai/v1", "stream_only": False}, "/openai/v1/completions"),
    ),
    "streams only": (streams_only, {}, {"stream_only": True}, CHAT),
    "streams only, 422": (
        *(lambda *a: (422, "stream required") if streams_only(*a) else None, {}, {"stream_only": True}, CHAT),
    ),
    "no stream_options": (
        *(without("stream_options", 422), {}, {"stream_options": False, "stream_only": False}, CHAT),
    ),
    "no stream_options, unsaid": (
        *(without("stream_options", 400, "bad request"), {}, {"stream_options": False, "stream_only": False}, CHAT),
    ),
    "no max_tokens": (
        *(without("max_tokens", 400, "use max_completion_tokens"), {}),
        *({"max_tokens_field": "max_completion_tokens", "stream_only": False}, CHAT),
    ),
    "no max_tokens, no temperature": (
        *(modern, {}),
        *({"max_tokens_field": "max_completion_tokens", "leave_out": ["temperature"], "stream_only": False}, CHAT),
    ),
    "key as api-key": (
        *(with_key("api-key"), {"api_key_env": "THE_KEY"}, {"key_header": "api-key", "stream_only": False}, CHAT),
    ),
    "key as x-api-key": (
        *(with_key("x-api-key"), {"api_key_env": "THE_KEY"}, {"key_header": "x-api-key", "stream_only": False}, CHAT),
    ),
    "key as Bearer": (
        with_key("Authorization", "Bearer s3cret"),
        {"api_key_env": "THE_KEY"},
        {"stream_only": False},
        CHAT,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_endpoint_needs_is_found_by_asking(kind):
    refuse, given, needs, route = KINDS[kind]
    told = []
    with served(Handler, **({"refuse": refuse} if refuse else {})) as server:
        endpoint = seat_of("a", server.url, given, "--").inspect(told.append)
        recipe = make_recipe(endpoint)
        asker = Asker(endpoint)
        assert asker.ask("one two", {"max_tokens": 3}).output_tokens == 3
        assert asker.stream("one two", {"max_tokens": 3}).output_tokens == 3
        asker.close()
        asked = len(server.seen)
        assert seat_of("a", server.url, given, "--").inspect(told.append) == endpoint
        assert len(server.seen) == asked, "once in a process"
    found = json.loads(endpoint.needs.model_dump_json(exclude_defaults=True, exclude_none=True))
    assert found == needs and endpoint.route() == route
    assert recipe.overhead == (0 if endpoint.api == "completions" else 5)
    if kind not in ("plain", "key as Bearer", "key as api-key", "key as x-api-key"):
        assert told and all("\n" not in line for line in told)
    assert not any("s3cret" in line for line in [*told, repr(endpoint), recipe.source])


GIVEN = {
    "path": (only("/api/v9/"), {"api_path": "/api/v9"}, "/api/v9/chat/completions"),
    "whole route": (only("/x/completions"), {"api_path": "/x/completions"}, "/x/completions"),
    "deployment": (
        lambda where, headers, body: (
            only("/openai/deployments/d/")(where, headers, body)
            or (None if where.endswith("?api-version=1") else (404, "no version"))
        ),
        {"api_path": "/openai/deployments/d/chat/completions?api-version=1"},
        "/openai/deployments/d/chat/completions?api-version=1",
    ),
    "header": (with_key("X-Key"), {"headers": ["X-Key=env:THE_KEY"]}, CHAT),
    "literal header": (with_key("X-Key", "literal"), {"headers": {"X-Key": "literal"}}, CHAT),
    "key header": (with_key("X-Other"), {"key_header": "X-Other", "api_key_env": "THE_KEY"}, CHAT),
    "extra body": (
        lambda where, headers, body: None if not body or body.get("thinking") == {"type": "off"} else (400, "no"),
        {"extra_body": '{"thinking": {"type": "off"}}'},
        CHAT,
    ),
    "field removed": (without("temperature", 400, "no"), {"extra_body": {"temperature": None}}, CHAT),
    "length field": (without("max_tokens"), {"max_tokens_field": "max_completion_tokens"}, CHAT),
    "no stream options": (without("stream_options"), {"stream_options": False}, CHAT),
    "streams only": (streams_only, {"stream_only": True}, CHAT),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_what_an_endpoint_needs_can_be_given(kind):
    refuse, given, route = GIVEN[kind]
    with served(Handler, refuse=refuse) as server:
        seat = seat_of("a", server.url, {"model": "m", **given}, "--")
        assert read_of(seats_json([seat])) == [seat], "workers' master gets the same"
        told = []
        endpoint = seat.inspect(told.append)
        assert (told, endpoint.route()) == ([], route)
        make_recipe(endpoint)


def read_of(text):
    before = os.environ.get("BAKEOFF_ENGINES_JSON")
    os.environ["BAKEOFF_ENGINES_JSON"] = text
    try:
        return read_seats()
    finally:
        os.environ.pop("BAKEOFF_ENGINES_JSON") if before is None else os.environ.update(BAKEOFF_ENGINES_JSON=before)


@pytest.mark.parametrize(
    ("refuse", "given", "said"),
    [
        (only("/nowhere/"), {"model": "m"}, r"HTTP 404.*--api chat, completions or responses.*--api-path"),
        (with_key("odd"), {"model": "m"}, r"HTTP 401: no key. Give the API key with --api-key-env"),
        (lambda *_: (400, "no chat template"), {"model": "m"}, r"Ask it with --api completions"),
        (only(TEXT), {"model": "m", "api": "chat"}, r"HTTP 404"),
        (lambda *_: (404, "The model `m` does not exist"), {"model": "m"}, r"model `m` does not exist"),
    ],
    ids=["no route", "no key", "no template", "API was chosen", "no such model"],
)
def test_an_endpoint_that_cannot_be_asked_says_so_with_the_option(refuse, given, said):
    with served(Handler, refuse=refuse) as server, pytest.raises(UserError, match=said):
        seat_of("a", server.url, given, "--").inspect(lambda text: None)


@pytest.mark.parametrize(
    ("models", "model", "taken"),
    [
        ({"data": [{"id": "*"}]}, "any/thing", "any/thing"),
        ({"data": [{"id": "openai/*"}, {"id": "own"}]}, "openai/x", "openai/x"),
        ({"data": [{"id": "openai/*"}, {"id": "own"}]}, None, "own"),
        ({"data": []}, "given", "given"),
        (None, "given", "given"),
    ],
)
def test_model_lists_of_every_form(models, model, taken):
    with served(Handler, models=models) as server:
        assert seat_of("a", server.url, {"model": model}, "--").inspect(lambda text: None).model == taken


@pytest.mark.parametrize(
    ("models", "model", "said"),
    [
        ({"data": [{"id": "*"}, {"id": "a/*"}]}, None, r"patterns of models only \(\*, a/\*\): name one with --model"),
        ({"data": [{"id": "a/*"}]}, "b/x", r"does not serve 'b/x'"),
        ({"data": []}, None, r"lists no model. Name one with --model"),
    ],
)
def test_model_lists_that_leave_it_open(models, model, said):
    with served(Handler, models=models) as server, pytest.raises(UserError, match=said):
        seat_of("a", server.url, {"model": model}, "--").inspect(lambda text: None)


def test_a_url_may_be_that_of_a_whole_route():
    seat = seat_of("a", "https://h/openai/deployments/d/chat/completions?api-version=1", {}, "--")
    assert seat.base_url == "https://h"
    assert seat.needs.api_path == "/openai/deployments/d/chat/completions?api-version=1"
    assert seat_of("a", "h:80/x/v1/", {}, "--") == Seat(name="a", base_url="http://h:80/x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"extra_body": "[1]"}, r"^--extra-body: must be a JSON object"),
        ({"extra_body": '{"stream": false}'}, r"^--extra-body: stream: set by the measurement itself"),
        ({"headers": ["no value"]}, r"^--header: give NAME=VALUE or NAME=env:VARIABLE"),
        ({"headers": ["Host=x"]}, r"^--header: Host is set by the request itself"),
        ({"headers": ["a b=x"]}, r"^--header: give NAME=VALUE"),
        ({"api_path": "http://x/v1"}, r"^--api-path: give a path such as"),
        ({"api_key_env": "NOT_SET"}, r"^--api-key-env NOT_SET: that environment variable is not set"),
        ({"api": "embeddings"}, r"^--api: must be chat, completions or responses"),
        ({"kind": "x"}, r"Unknown engine kind 'x'"),
    ],
)
def test_what_is_given_wrongly_is_told_in_a_line(given, said):
    with pytest.raises(UserError, match=said):
        seat_of("a", "http://h", given, "--")


def test_no_value_of_a_header_is_kept_anywhere():
    needs = Needs.of({"headers": ["api-key=s3cret", "x=env:THE_KEY"]}, "--")
    assert needs.headers == (("api-key", "env:BAKEOFF_HEADER_API_KEY"), ("x", "env:THE_KEY"))
    assert needs.request_headers(None) == {"api-key": "s3cret", "x": "s3cret"}
    other = Needs.of({"headers": ["api-key=another"]}, "--")
    assert other.headers == (("api-key", "env:BAKEOFF_HEADER_API_KEY_2"),)
    placed = {"name": "a", "url": "http://h", "headers": {"api-key": "s3cret"}}
    scenario = Scenario.model_validate(
        {"name": "s", "question": "q", "engines": [placed], "prompt_tokens": [9], "output_tokens": [9]}
        | {"load": {"concurrency": [1]}, "requests": 1}
    )
    assert scenario.engines == ["a"]
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
    assert "s3cret" not in repr((needs, scenario)) + needs.model_dump_json() + scenario.model_dump_json()
    words = ["bench", "--header", "a=s3cret", "--header=b=s3cret", "--engine", "a=http://h,header=c=s3cret,model=m"]
    assert without_values(words) == [
        "bench",
        "--header",
        "a=...",
        "--header=b=...",
        "--engine",
        "a=http://h,header=c=...,model=m",
    ]
    assert without_values(["--header", "a=env:X", "a=b"]) == ["--header", "a=env:X", "a=b"]


def test_a_variable_that_is_not_set_where_the_request_is_made_is_named(monkeypatch):
    needs = Needs.of({"headers": ["x=env:NOT_SET"]}, "--")
    with pytest.raises(UserError, match=r"^Header x: the environment variable NOT_SET is not set here"):
        needs.request_headers(None)
    monkeypatch.setenv("NOT_SET", "a\nb")
    with pytest.raises(UserError, match="line break"):
        needs.request_headers(None)


def test_each_engine_may_have_settings_of_its_own(monkeypatch):
    monkeypatch.setenv("KEY_B", "b")
    text = 'b=http://b,model=mb,api=completions,api-key-env=KEY_B,header=x=env:KEY_B,extra-body={"p":{"order":["a","b"]},"q":1}'
    seats = Endpoints(engine=["a=http://a", text], model="shared").seats(EndpointNeeds(header=["y=env:THE_KEY"]))
    a, b = seats
    assert (a.model, a.api, a.headers()) == ("shared", None, {"y": "s3cret"})
    assert (b.model, b.api, b.api_key_env, b.base_url) == ("mb", "completions", "KEY_B", "http://b")
    assert b.headers() == {"Authorization": "Bearer b", "y": "s3cret", "x": "b"}
    assert json.loads(b.needs.extra_body) == {"p": {"order": ["a", "b"]}, "q": 1}
    again = f"b={b.base_url}" + "".join(f",{setting}" for setting in b.settings())
    assert Endpoints(engine=[again]).seats(EndpointNeeds()) == [b], "what a resume's command says"
    assert parse_given("http://h,odd,insecure=true") == ("http://h,odd", {"insecure": True})


def bakeoff(*arguments, **environment):
    command = [sys.executable, "-m", "loadgen", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


CELL = ("--requests", 2, "--warmup-requests", 0, "--prompt-tokens", 24, "--output-tokens", 4)
DONE = (0, 6)
"""Every request succeeded, whether or not this machine was fast enough for the figures to be the server's."""


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
@pytest.mark.parametrize("given", ["authority", "insecure", "neither"])
def test_run_behind_a_buffering_tls_proxy_with_a_key_and_a_deployment(tmp_path, given):
    authority, certificate = private_authority(tmp_path)
    path = "/openai/deployments/x"

    def refuse(where, headers, body):
        return with_key("api-key")(where, headers, body) or only(path)(where, headers, body)

    option = {"authority": ["--cacert", authority], "insecure": ["--insecure"], "neither": []}[given]
    with (
        served(Handler, refuse=refuse, models=None) as server,
        served(Proxy, certificate, upstream=server.url) as proxy,
    ):
        url = f"{proxy.url}{path}/chat/completions?api-version=1"
        record, result = tmp_path / "records.jsonl", tmp_path / "result.json"
        files = ("--records", record, "--json", result)
        code, said = bakeoff("run", "--base-url", url, "--header", "api-key=env:THE_KEY", *option, *CELL, *files)
    if given == "neither":
        assert code == 2 and "no TLS connection" in said and "--cacert" in said and "Traceback" not in said
        return
    assert code in DONE, said
    assert "model x" in said, "a deployment's name is the model's, where nothing else is said"
    assert "s3cret" not in said + record.read_text() + result.read_text()
    assert json.loads(result.read_text())["tpot_ms"]["mean"] is None and "as from a proxy that buffers them" in said
    assert all(where == f"{path}/chat/completions?api-version=1" for where, _, _ in server.seen)
    # The request after the last one that was asked for is broken off.
    assert [json.loads(line)["output_tokens"] for line in record.read_text().splitlines()[:2]] == [4, 4]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "options"),
    [("responses only", ["--model", "m"]), ("no max_tokens, no temperature", []), ("streams only", [])],
)
def test_run_against_an_endpoint_of_its_own_sort(kind, options):
    with served(Handler, refuse=KINDS[kind][0]) as server:
        code, said = bakeoff("run", "--base-url", server.url, *options, *CELL)
    assert code in DONE, said
    assert f"{server.url} " in said.splitlines()[0], "what was found is told in a line"


def test_a_server_that_stalls_is_told_as_waited_for(monkeypatch):
    monkeypatch.setattr("loadgen.endpoints.seats.SLOW_S", 0.05)
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asked = threading.Thread(target=lambda: silent.accept()[0].close() if told_soon(told) else None)
        asked.start()
        with pytest.raises(UserError):
            seat_of("slow", url, {"model": "m"}, "slow").inspect(told.append)
        asked.join()
    assert told == [f"waiting for {url} to answer (120 s at most for an answer)"]


def told_soon(told: list[str]) -> bool:
    """Whether something is told within a minute."""
    end = time.monotonic() + 60
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    return bool(told)
