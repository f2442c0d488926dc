"""What is asked of engines, against real HTTP servers."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from exporters.probe import TEXT_LIMIT, EngineProbe, Identity, ProbeError


def ask(url, what, **limits):
    async def go():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(**{"total": 120, **limits})) as session:
            return await getattr(EngineProbe(session, url), what)()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("flavour", "identity"),
    [
        ("vllm", Identity("0.32.0", "gemma", 4096)),
        ("llamacpp", Identity("b11549-abc", "gemma", 512)),
        ("ksana", Identity(None, "qwen")),  # no /health, no /version, and models under /models only
        ("broken", Identity(None, None)),
        ("empty", Identity(None, None)),
    ],
)
def test_engines_are_recognised(fake_engine, flavour, identity):
    url = fake_engine(flavour).url
    assert ask(url, "healthy") is True
    assert ask(url, "identity") == identity


def test_an_engine_that_loads_its_model_is_not_healthy(fake_engine):
    assert ask(fake_engine("loading").url, "healthy") is False


def test_nobody_listens(free_port):
    assert ask(f"http://127.0.0.1:{free_port}", "healthy") is None
    assert ask(f"http://127.0.0.1:{free_port}", "identity") == Identity(None, None)


def test_a_hanging_engine_is_an_error_within_the_timeout(fake_engine):
    fake = fake_engine()
    fake.control("hang")
    with pytest.raises(ProbeError, match="/health: no answer in time"):
        ask(fake.url, "healthy", sock_read=0.3)


def test_an_endless_answer_is_an_error(fake_engine):
    with pytest.raises(ProbeError, match="more than"):
        ask(fake_engine("endless").url, "healthy")


@pytest.mark.parametrize("reply", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"])
def test_a_server_that_does_not_speak_http_or_hangs_up_is_an_error(reply):
    async def go():
        async def serve(reader, writer):
            await reader.read(1)
            writer.write(reply)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, aiohttp.ClientSession() as session:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ProbeError):
                await EngineProbe(session, f"http://127.0.0.1:{port}").healthy()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("entry", "context"),
    [
        ({"max_model_len": 8192}, 8192),
        ({"max_model_len": None, "meta": {"n_ctx": 512}}, 512),
        ({"max_model_len": 0}, None),
        ({"max_model_len": True}, None),
        ({"max_model_len": "8192"}, None),
        ({"meta": None}, None),
        ({"meta": {"n_ctx": -1}}, None),
        ({"max_model_len": 10**400}, None),
        ({}, None),
    ],
)
def test_a_context_is_a_number_of_tokens_or_unknown(entry, context):
    assert identity_of({"data": [{"id": "m", **entry}]}) == Identity(None, "m", context)


def test_what_an_engine_calls_itself_always_fits_a_label():
    found = identity_of({"data": [{"id": "\ud800" + "m" * 9999}]}, {"version": "1\udfff"})
    assert found == Identity("1?", "?" + "m" * (TEXT_LIMIT - 1))


def identity_of(models, version=None):
    """What is told of an engine that answers so."""

    def answering(body):
        async def answer(_):
            return web.json_response(body)

        return answer

    async def go():
        app = web.Application()
        for path, body in (("/v1/models", models), ("/version", version)):
            app.router.add_get(path, answering(body))
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            return await EngineProbe(session, str(server.make_url("")).rstrip("/")).identity()

    return asyncio.run(go())
