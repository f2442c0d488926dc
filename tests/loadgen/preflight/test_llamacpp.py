"""Against a real engine: llama.cpp by itself, and beside itself with its prompt cache on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.endpoints.endpoint import inspect_endpoint
from loadgen.endpoints.tokens import count_tokens, make_recipe
from loadgen.machine import unused_ports
from loadgen.preflight import prefix_cache, sampling
from loadgen.preflight.compare import compare
from loadgen.preflight.finding import Needs
from loadgen.preflight.questions import COUNTED_TEXTS
from loadgen.preflight.sampling import sample_engine
from loadgen.preflight.work_checks import explain_counts
from loadgen.settings import Paths
from tests.loadgen.bench.races import TOP
from tests.stack.set_up import has_llamacpp

PATHS = Paths(TOP)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),  # it computes: on a busy machine for long
    pytest.mark.skipif(not has_llamacpp(TOP), reason="run `python -m stack setup --engine llamacpp` first"),
]


@contextlib.contextmanager
def llama(folder: Path, **serving: bool) -> Iterator[str]:
    """A server on a free port; yields its URL."""
    (port,) = unused_ports(1)
    folder.mkdir()
    argv = [str(PATHS.engine_python("llamacpp")), "-m", "stack.engines.llamacpp.serve", "--model", str(PATHS.gguf)]
    argv += ["--served-name", "gemma", "--port", str(port)]
    # One thread: several wait for each other by spinning, for minutes where other tests have the cores.
    argv += ["--cpus", str(max(os.sched_getaffinity(0)))]
    argv += ["--context-tokens", "1024", "--parallel", "2", "--state-dir", str(folder)]
    argv += ["--record", str(folder / "launch.json")]
    asked = folder / "serving.json"
    asked.write_text(json.dumps(serving))
    environment = {**os.environ, "PYTHONPATH": str(TOP), "BAKEOFF_SERVING_FILE": str(asked)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=TOP, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while not healthy(url):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(300)


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=60) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def sample(url: str, name: str):
    """Fewer texts and shorter prompts than in a race, which take this engine minutes."""
    endpoint = inspect_endpoint(url, name=name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sampling, "GREEDY_TEXTS", sampling.GREEDY_TEXTS[:6])
        patched.setattr(prefix_cache, "LONG_PROMPTS", (96, 512))
        return sample_engine(
            endpoint, make_recipe(endpoint), text_api="completions", nonce=name, tell=lambda text: None
        )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What it answers by default, and how it counts chats."""
    with llama(tmp_path_factory.mktemp("llama") / "plain", prefix_caching=False) as url:
        chat = inspect_endpoint(url, name="chat", api="chat")
        yield sample(url, "a"), {kind: count_tokens(chat, text) for kind, text in COUNTED_TEXTS.items()}


def test_what_it_answers(plain):
    made, _ = plain
    assert made.problem is None
    assert {wanted: stream.output_tokens for wanted, stream in made.lengths.items()} == {1: 1, 9: 9, 40: 40}
    assert made.prompt_tokens["word"] == 2, "a BOS and one token"
    assert all(answer is not None and len(answer.tokens) == 16 for answer in made.greedy)
    assert "France" in made.greedy[0].text
    assert set(made.parameters.values()) == {"honoured"}
    assert made.unknown_fields == "accepted"


def test_beside_itself_only_its_prompt_cache_differs(plain, tmp_path):
    with llama(tmp_path / "cached", prefix_caching=True) as url:
        cached = sample(url, "b")
    found = {fact.name: fact for fact in compare([plain[0], cached], Needs(1024, False))}
    assert [name for name, fact in found.items() if fact.verdict == "blocking"] == ["prefix-caching"], found
    # A prompt whose start is cached is computed in other batches, so that sums may differ in their last bits.
    noted = {name for name, fact in found.items() if fact.verdict == "noted"}
    assert noted <= {"greedy-text", "logprobs"}
    assert found["prefix-caching"].values["a"].startswith("off")
    assert found["prefix-caching"].values["b"].startswith("on")


def test_its_chat_template_is_told_from_plain_text(plain):
    made, by_chat = plain
    assert explain_counts(made.prompt_tokens, by_chat, "a", "b").cause == "chat template"
