"""What is asked of engines, against real HTTP servers."""

import asyncio

import aiohttp
import pytest

from exporters.probe import EngineProbe, Identity, ProbeError


def ask(url, what, timeout=10.0):
    async def go():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session:
            return await getattr(EngineProbe(session, url), what)()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("flavour", "identity"),
    [
        ("vllm", Identity("0.32.0", "gemma")),
        ("llamacpp", Identity("b11549-abc", "gemma")),
        ("ksana", Identity(None, "qwen")),  # no /health, no /version, and models under /models only
        ("broken", Identity(None, None)),
    ],
)
def test_engines_are_recognised(fake_engine, flavour, identity):
    url = fake_engine(flavour).url
    assert ask(url, "healthy") is True
    assert ask(url, "identity") == identity


def test_an_engine_that_loads_its_model_is_not_healthy(fake_engine):
    assert ask(fake_engine("loading").url, "healthy") is False


def test_nobody_listens(free_port):
    assert ask(f"http://127.0.0.1:{free_port}", "healthy") is False
    assert ask(f"http://127.0.0.1:{free_port}", "identity") == Identity(None, None)


def test_a_hanging_engine_is_an_error_within_the_timeout(fake_engine):
    fake = fake_engine()
    fake.control("hang")
    with pytest.raises(ProbeError, match="/health: no answer in time"):
        ask(fake.url, "healthy", timeout=0.3)


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
