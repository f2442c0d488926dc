"""Endpoints: their URL, and what they are asked before any load."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints import endpoint as module
from loadgen.endpoints.endpoint import Client, Endpoint, inspect_endpoint, normalise_url
from loadgen.engines.needs import Needs
from loadgen.errors import UserError
from loadgen.stream.http_stream import Connection
from tests.fault_server import FaultServer
from tests.loadgen.distributed.web import serve
from tests.loadgen.endpoints.odd_server import Handler, private_authority, served

MODELS = "/v1/models"


def listing(*models: object) -> tuple[int, object]:
    return 200, {"object": "list", "data": [{"id": m} if isinstance(m, str) else m for m in models]}


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000//v1//", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("  http://host:1 ", "http://host:1"),
        ("https://host", "https://host"),
        ("HTTPS://host/v1", "https://host"),
        ("https://host/prefix/v1", "https://host/prefix"),
        ("https://host/a/b/", "https://host/a/b"),
        ("https://host/v1beta", "https://host/v1beta"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_urls_are_brought_into_one_form(given_url, normal):
    assert normalise_url(given_url) == normal
    assert normalise_url(normal) == normal
    Connection(normal).close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "http://",
        "http://:8000",
        "ftp://host",
        "file:///etc/passwd",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://[::1",
        "http://[nonsense]:8000",
        "http://host/a b",
        "http://ho st",
        "http://host/é",
        "http://h\u00f6st",
        "http://host/?a=1",
        "http://host/v1?key=x",
        "http://host/#part",
        "http://host/\r\nX: y",
        "http://host\x00",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(UserError, match=r"is not a usable URL"):
        normalise_url(url)


@pytest.mark.parametrize("url", ["http://user:secret@host", "http://user@host", "http://:secret@host:1/v1"])
def test_a_url_with_credentials_is_refused_without_showing_them(url):
    with pytest.raises(UserError, match=r"--api-key-env") as caught:
        normalise_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40) | st.text("htps:/[]@v1.?#0", max_size=20).map("http://{}".format))
def test_any_text_is_a_url_or_refused(text):
    try:
        normal = normalise_url(text)
    except UserError:
        return
    assert normalise_url(normal) == normal
    Connection(normal).close()


def test_an_endpoint_is_asked_what_it_serves():
    entry = {"id": "m", "owned_by": "vllm", "max_model_len": 2048}
    with serve({MODELS: listing(entry), "/version": (200, {"version": "0.32.0"})}) as web:
        found = inspect_endpoint(web.url + "/v1/", name="a", api_key="s3cret")
    assert found == Endpoint("a", "vllm", web.url, "m", "completions", "0.32.0", 2048, None, "s3cret")
    assert "s3cret" not in repr(found)
    assert all(headers["Authorization"] == "Bearer s3cret" for _, headers in web.seen)


def test_what_utf_8_cannot_hold_in_an_endpoints_words_is_replaced():
    entry = {"id": "\ud800x", "owned_by": "vllm"}
    with serve({MODELS: listing(entry), "/version": (200, {"version": "1\udfff"})}) as web:
        found = inspect_endpoint(web.url)
    assert (found.model, found.version) == ("\ufffdx", "1\ufffd")


def test_ksana_lists_its_models_elsewhere_and_takes_any_name():
    with serve({"/models": listing("/weights/Qwen")}) as web:
        found = inspect_endpoint(web.url, kind="ksana")
        assert (found.kind, found.model, found.api) == ("ksana", "/weights/Qwen", "chat")
        assert inspect_endpoint(web.url, kind="ksana", model="any").model == "any"
        assert inspect_endpoint(web.url).model == "/weights/Qwen", "found without being told"
        with pytest.raises(UserError, match=r"does not serve completions; use --api chat"):
            inspect_endpoint(web.url, kind="ksana", api="completions")


def test_of_several_models_one_must_be_chosen():
    with serve({MODELS: listing("a", "b")}) as web:
        with pytest.raises(UserError, match=r"serves 2 models \(a, b\): choose with --model"):
            inspect_endpoint(web.url)
        assert inspect_endpoint(web.url, model="b").model == "b"


def test_a_model_that_is_not_served_is_refused():
    with serve({MODELS: listing("a")}) as web, pytest.raises(UserError, match=r"does not serve 'x'. It serves: a"):
        inspect_endpoint(web.url, model="x")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, b"<html>welcome</html>"), "the answer is not JSON: '<html>welcome"),
        ((401, {"error": "who are you?"}), "HTTP 401: .*who are you.*--api-key-env"),
        ((403, b"no"), "HTTP 403: no. Give the API key"),
        ((500, b""), "HTTP 500: no detail"),
        ((302, b""), "HTTP 302: /elsewhere"),
        ((200, []), "not a model list"),
        ((200, {"data": None}), "not a model list"),
        ((200, {"data": []}), "lists no model. Name one with --model"),
        ((200, {"data": [1, "a", None]}), "lists no model"),
        ((200, {"data": [{"name": "a"}]}), "lists no model"),
    ],
)
def test_a_model_list_that_is_none_is_told_and_can_be_done_without(reply, words):
    with serve({MODELS: reply}) as web:
        with pytest.raises(UserError, match=words) as caught:
            inspect_endpoint(web.url)
        assert "--model" in str(caught.value)
        assert inspect_endpoint(web.url, model="x").model == "x"


def test_nothing_answers():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(UserError, match=f"Nothing answers at {url}. Is the engine up"):
        inspect_endpoint(url, model="m")
    with pytest.raises(UserError, match=r"The name 'no-such-host.invalid' in .* cannot be resolved: .+ spelled right"):
        inspect_endpoint("http://no-such-host.invalid")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_port_that_speaks_tls_is_told_from_one_that_does_not(tmp_path):
    authority, certificate = private_authority(tmp_path)
    with served(Handler, certificate) as secure, served(Handler) as plain:
        with pytest.raises(UserError, match=f"speaks TLS: give {secure.url}"):
            inspect_endpoint(secure.url.replace("https", "http"), model="m")
        with pytest.raises(UserError, match=rf"no TLS connection: .*speaks plain HTTP, give {plain.url}\.$"):
            inspect_endpoint(plain.url.replace("http", "https"), model="m")
        with pytest.raises(UserError, match=r"no TLS connection: .*certificate.*--cacert"):
            inspect_endpoint(secure.url, model="m")
        assert inspect_endpoint(secure.url, model="m", needs=Needs(cacert=str(authority))).model == "m"


@pytest.mark.parametrize(
    ("status", "key", "needs", "words"),
    [
        (401, None, Needs(), r"HTTP 401: no\. Give the API key with --api-key-env, or as --header"),
        (403, "k", Needs(), r"HTTP 403: no\. The API key was sent and is not accepted: [^?]* valid\. Is this"),
        (401, None, Needs(headers=(("x-key", "env:A_KEY"),)), r"The further headers were sent and are not enough"),
    ],
)
def test_a_wrong_key_is_told_from_a_missing_one(monkeypatch, status, key, needs, words):
    monkeypatch.setenv("A_KEY", "k")
    with serve({MODELS: (status, b"no")}) as web, pytest.raises(UserError, match=words):
        inspect_endpoint(web.url, api_key=key, needs=needs)


def test_a_server_that_hangs_is_given_up_after_one_wait(monkeypatch):
    call, asked = Client.call, []

    def hurried(self, *args, timeout_s=0):
        asked.append(args)
        return call(self, *args, timeout_s=0.3)

    monkeypatch.setattr(Client, "call", hurried)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UserError, match=r"no answer within 0.3 s"),
    ):
        inspect_endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert len(asked) == 1


def test_a_server_that_closes_at_once_is_one_message():
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def close_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    rude.accept()[0].close()

        closes = threading.Thread(target=close_all)
        closes.start()
        with pytest.raises(UserError) as caught:
            inspect_endpoint(f"http://127.0.0.1:{rude.getsockname()[1]}")
        rude.shutdown(socket.SHUT_RDWR)
        closes.join()
    assert "\n" not in str(caught.value)


def test_a_proxy_of_the_environment_is_never_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serve({MODELS: listing("m")}) as web:
        assert inspect_endpoint(web.url).model == "m"


def test_https_with_a_private_authority(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultServer(tls=context) as server:
        with pytest.raises(UserError, match=r"no TLS connection: .*certificate verify failed.*SSL_CERT_FILE"):
            inspect_endpoint(server.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert inspect_endpoint(server.url).model == "fault-model"


def test_a_version_route_that_is_missing_or_odd_leaves_the_version_open():
    for reply in ((404, {}), (200, []), (200, b"<html>"), (200, {"version": None})):
        with serve({MODELS: listing({"id": "m", "owned_by": "vllm"}), "/version": reply}) as web:
            assert inspect_endpoint(web.url).version is None


def test_an_unknown_kind_is_refused():
    with serve({MODELS: listing("m")}) as web, pytest.raises(UserError, match=r"Unknown engine kind 'x'"):
        inspect_endpoint(web.url, kind="x")


def test_a_tokenizer_is_a_folder_or_a_file_and_must_be_there(tmp_path, monkeypatch):
    file = tmp_path / "tokenizer.json"
    with serve({MODELS: listing("m")}) as web:
        with pytest.raises(UserError, match=r"there is no such tokenizer. Give the folder"):
            inspect_endpoint(web.url, tokenizer=str(tmp_path))
        file.write_text("{}")
        monkeypatch.chdir(tmp_path)
        for given_path in (str(tmp_path), str(file), ".", "tokenizer.json"):
            assert inspect_endpoint(web.url, tokenizer=given_path).tokenizer == str(file)


def test_try_call_is_none_where_a_route_is_not_there():
    with serve({"/there": (200, {"a": 1})}) as web:
        client = Client(web.url)
        assert client.try_call("GET", "/there") == {"a": 1}
        assert client.try_call("GET", "/not") is None


def test_the_limit_of_a_plain_request_is_set():
    assert 0 < module.TIMEOUT_S <= 60


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_the_end_of_a_response_is_not_waited_beyond(kind, blank):
    event = f'data: {{"type":{blank}"response.{kind}"}}\n\n'.encode()
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as held:

        def answer():
            connection, _ = listening.accept()
            held.enter_context(connection)  # it is never closed by the server
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event)

        server = threading.Thread(target=answer)
        server.start()
        started = time.monotonic()
        status, text = Client(f"http://127.0.0.1:{listening.getsockname()[1]}").post("/v1/responses", {}, timeout_s=300)
        took = time.monotonic() - started
        server.join()
    assert took < 200, "it waited for the connection to close"
    assert (status, text) == (200, event.decode().strip())
