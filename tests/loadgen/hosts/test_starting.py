import pytest

from loadgen.hosts.base import LINE_WIDTH, Starting, readable


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "(EngineCore_DP0 pid=4711) INFO 11-28 20:01:02 [gpu_model_runner.py:2602] Starting to load model gemma...",
            "Starting to load model gemma...",
        ),
        ("INFO:     Waiting for application startup.", "Waiting for application startup."),
        ("[2026-01-02 03:04:05.678] [INFO] [engine.cpp:12] loading weights", "loading weights"),
        ("2026-01-02T03:04:05.678Z INFO loading weights", "loading weights"),
        ("\x1b[32mINFO\x1b[0m 11-28 20:01:02 [a.py:1] \x1b[1mready\x1b[0m", "ready"),
        ("Loading checkpoint shards:  50% Completed", "Loading checkpoint shards: 50% Completed"),
        ("Capturing CUDA graphs:  42%|####     | 28/67 [00:01<00:02, 17.1it/s]", "Capturing CUDA graphs: 42%"),
        ("one\rtwo", "two"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_line_of_a_log_is_shown_without_what_nobody_reads(line, words):
    assert readable(line) == words


def test_a_long_line_is_cut_between_words():
    text = readable("word " * 40)
    assert len(text) <= LINE_WIDTH and text.endswith("word …")


def test_the_same_line_is_said_once():
    starting = Starting("vllm")
    told = [starting.words(seconds, line) for seconds, line in ((10, "loading"), (20, "loading"), (30, "compiling"))]
    assert told == ["vllm is starting, 10 s: loading", "vllm is starting, 20 s", "vllm is starting, 30 s: compiling"]
