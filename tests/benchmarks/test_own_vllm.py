"""A real vLLM for the experiments, here one that only says how it was called."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
import urllib3
from tokenizers import Tokenizer

from benchmarks.own_vllm import own_vllm
from benchmarks.small_model import write
from loadgen.scenario.file import load_scenario

SERVER = """#!{python}
import http.server, json, pathlib, sys
words = sys.argv[1:]
if "{fails}":
    sys.exit("No common block size")

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"argv": words, "cwd": str(pathlib.Path.cwd())}}).encode())

http.server.HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Answer).serve_forever()
"""


@pytest.fixture
def python(tmp_path):
    def made(fails: str = ""):
        file = tmp_path / "python"
        file.write_text(SERVER.format(python=sys.executable, fails=fails))
        file.chmod(0o755)
        return file

    return made


def test_it_is_set_up_as_the_scenario_says_in_blocks_that_a_cpu_takes(python):
    with own_vllm(python(), load_scenario("internals-exhaustion").serving) as url:
        called = json.loads(urllib3.request("GET", url).data)
    words = called["argv"]
    assert words[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    given = dict(itertools.pairwise(words))
    assert (given["--block-size"], given["--num-gpu-blocks-override"]) == ("32", "768")
    assert (given["--load-format"], given["--max-num-seqs"]) == ("dummy", "64")
    assert given["--model"].startswith(called["cwd"])


def test_one_that_does_not_start_ends_it_with_what_it_said(python):
    with (
        pytest.raises(SystemExit, match="No common block size"),
        own_vllm(python("yes"), load_scenario("internals-exhaustion").serving),
    ):
        pass


def test_the_models_folder_is_what_its_files_say(tmp_path):
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    words = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert config["vocab_size"] == words.get_vocab_size()
    text = " bada kotu, naive\n"
    assert words.decode(words.encode(text).ids) == text
    assert words.decode(words.encode("ï").ids) == "??"
    every = [words.decode([token]) for token in range(words.get_vocab_size())]
    assert all(every) and "".join(every).isascii(), "a token without text is an answer that failed"
    assert len(words.encode(" bada" * 7).ids) == 7
