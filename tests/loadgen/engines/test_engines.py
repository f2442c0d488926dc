"""What is said of each engine, pinned as data: a change here changes what every run asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen import engines
from loadgen.engines import ENGINES, GENERIC, Engine, get_engine
from loadgen.errors import UserError

COMMON = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
FIELDS = {
    "vllm": {**COMMON, "temperature": 0, "max_tokens": 9, "min_tokens": 9, "ignore_eos": True},
    "ksana": {**COMMON, "max_tokens": 9, "min_tokens": 9, "ignore_eos": True},
    "llamacpp": {**COMMON, "temperature": 0, "max_tokens": 9, "ignore_eos": True},
    "sglang": {**COMMON, "temperature": 0, "max_tokens": 9, "min_tokens": 9, "ignore_eos": True},
    "openai": {**COMMON, "temperature": 0, "max_tokens": 9},
}
ROUTES = {  # default API, models, version, tokenize, metrics, health
    "vllm": ("completions", "/v1/models", "/version", "/tokenize", "/metrics", "/health"),
    "ksana": ("chat", "/models", None, None, None, "/health"),
    "llamacpp": ("completions", "/v1/models", "/props", "/tokenize", "/metrics", "/health"),
    "sglang": ("completions", "/v1/models", "/server_info", "/tokenize", "/metrics", "/health"),
    "openai": ("chat", "/v1/models", None, None, None, "/v1/models"),
}
MODEL_ENTRIES = {
    "vllm": {"id": "m", "owned_by": "vllm", "max_model_len": 4096},
    "sglang": {"id": "m", "owned_by": "sglang", "max_model_len": 4096},
    "llamacpp": {"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 4096}},
}
each = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))


def test_the_registry_holds_one_engine_for_each_file():
    folder = Path(engines.__file__).parent
    others = {"__init__", "base", "model_config", "needs", "parallel", "serving"}
    files = {path.stem for path in folder.glob("*.py")} - others
    assert len(files) == len(ENGINES)
    assert all(kind == engine.kind for kind, engine in ENGINES.items())
    assert {type(engine).__module__.rsplit(".", 1)[1] for engine in ENGINES.values()} == files
    assert GENERIC in ENGINES


@pytest.mark.parametrize("kind", FIELDS)
def test_request_fields(kind):
    assert get_engine(kind).request_fields("m", 9) == FIELDS[kind]


@pytest.mark.parametrize("kind", ROUTES)
def test_routes(kind):
    e = get_engine(kind)
    found = (e.default_api, e.models_path, e.version_path, e.tokenize_path, e.metrics_path, e.health_path)
    assert found == ROUTES[kind]


def test_the_tables_above_name_every_engine():
    assert set(FIELDS) == set(ROUTES) == set(ENGINES)


@each
def test_what_an_engine_says_of_itself_fits_together(engine: Engine):
    assert engine.default_api in engine.apis
    assert set(engine.apis) <= set(engine.paths)
    routes = [*engine.paths.values(), engine.models_path, engine.health_path]
    routes += [path for path in (engine.version_path, engine.tokenize_path, engine.metrics_path) if path]
    assert all(path.startswith("/") and " " not in path for path in routes)
    if engine.accepts_token_ids:
        assert "completions" in engine.apis
    assert engine.length_fields(5)["max_tokens"] == 5
    if engine.tokenize_path:
        assert "hello" in engine.tokenize_body("m", "hello").values()
        assert engine.token_ids({"tokens": [1, 2], "count": 2}) == [1, 2]
    else:
        with pytest.raises(NotImplementedError):
            engine.tokenize_body("m", "hello")
    json.dumps(engine.request_fields("m", 5))


@each
def test_only_its_own_model_list_names_an_engine(engine: Engine):
    for kind, entry in MODEL_ENTRIES.items():
        assert engine.is_named_by(entry) is (kind == engine.kind)
    assert not engine.is_named_by({})
    assert not engine.is_named_by({"id": "m", "owned_by": None})


@each
def test_odd_answers_are_read_without_a_failure(engine: Engine):
    for odd in ({}, {"max_model_len": "4096"}, {"meta": None}, {"meta": {"n_ctx": "x"}}, {"meta": []}):
        assert engine.context_length(odd) is None
    assert engine.version({}) is None
    for reply in ({}, {"tokens": None}, {"tokens": [None]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            engine.token_ids(reply)


def test_context_and_version_of_the_engines_that_tell():
    assert get_engine("vllm").context_length(MODEL_ENTRIES["vllm"]) == 4096
    assert get_engine("llamacpp").context_length(MODEL_ENTRIES["llamacpp"]) == 4096
    assert get_engine("vllm").version({"version": "0.32.0"}) == "0.32.0"
    assert get_engine("llamacpp").version({"build_info": "b11549"}) == "b11549"


def test_an_unknown_engine_is_refused_with_those_that_are_known():
    with pytest.raises(UserError, match=r"Unknown engine kind 'vlm'. Known: vllm, ksana, llamacpp, sglang, openai"):
        get_engine("vlm")


@pytest.mark.parametrize(
    ("page", "tokens"), [("vllm-0.24.0-gpu", 2_033_120), ("vllm-0.32.0-cpu", 5461 * 128), ("llamacpp-b11549", None)]
)
def test_what_vllms_kv_cache_holds(page, tokens):
    text = (Path(__file__).parents[2] / "data" / f"{page}.metrics.txt").read_text()
    assert get_engine("vllm").kv_cache_tokens(text) == tokens
    assert get_engine("ksana").kv_cache_path is None and get_engine("ksana").kv_cache_tokens(text) is None
