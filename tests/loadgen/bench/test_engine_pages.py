"""Where engines' pages are looked for, and that every attempt at a block is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from loadgen.bench.engine_pages import pages_of
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.seats import Seat, page_url, seat_of
from loadgen.errors import UserError
from loadgen.monitoring.engine_watch import Pages
from loadgen.runs.manifest import EngineFacts, Manifest
from tests.loadgen.bench.test_campaign import RECIPE, RUNNING, A, B, Race
from tests.loadgen.bench.test_capacity_campaign import Capacity

STACK = {"ksana-exporter": "http://127.0.0.1:9103", "gpu-exporter": "http://127.0.0.1:9102/metrics"}


def pages(
    seat: Seat, kind: str | None = None, services: dict[str, str] | None = None, gpus: str | None = None
) -> Pages:
    manifest = Manifest(run_id="r", started_at=1.0)
    if kind is not None:
        endpoint = Endpoint(name=seat.name, kind=kind, base_url=seat.base_url, model="m", api="chat")
        manifest.engines = [EngineFacts.of(endpoint, RECIPE)]
    return pages_of([seat], manifest, services or {}, gpus)(seat.name)


def urls(found: Pages) -> tuple[str | None, str | None]:
    return found.engine and found.engine.url, found.gpus and found.gpus.url


@pytest.mark.parametrize(
    ("kind", "services", "url"),
    [
        ("vllm", {}, "http://h:8000/metrics"),
        ("llamacpp", {}, "http://h:8000/metrics"),
        ("openai", {}, None),
        (None, {}, None),
        ("ksana", {}, None),
        ("ksana", STACK, "http://127.0.0.1:9103/metrics"),
    ],
)
def test_an_engines_page_is_where_its_kind_has_it(kind, services, url):
    seat = Seat(name="a", base_url="http://h:8000")
    assert urls(pages(seat, kind, services)) == (url, "http://127.0.0.1:9102/metrics" if services else None)


def test_what_is_given_goes_first_and_gets_no_key(monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    seat = seat_of("a", "http://h:8000/v1", {"metrics": "x:9103", "api_key_env": "KEY", "kind": "vllm"}, "--engine a: ")
    found = pages(seat, "vllm", STACK, "http://g:9102/metrics")
    assert urls(found) == ("http://x:9103/metrics", "http://g:9102/metrics")
    assert found.engine.headers == {}
    own = pages(seat.model_copy(update={"metrics": None}), "vllm")
    assert own.engine.headers == {"Authorization": "Bearer secret"}


def test_exporters_know_a_variant_by_its_engine():
    seat = Seat(name="ksana-async", base_url="http://h:8080", local_url="http://127.0.0.1:7080", variant_of="ksana")
    found = pages(seat, "ksana", STACK)
    assert (found.label, found.gpu_labels) == ("ksana", ("ksana", "ksana-async", "port-7080"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("h:9102", "http://h:9102/metrics"),
        ("https://h/x/metrics", "https://h/x/metrics"),
        ("http://h/", "http://h/metrics"),
    ],
)
def test_a_page_may_be_given_by_its_host(given, url):
    assert page_url(given, "--gpu-metrics") == url


@pytest.mark.parametrize("given", ["", "http://u:p@h/metrics", "ftp://h", "http://h:99999"])
def test_what_is_no_page(given):
    with pytest.raises(UserError, match=r"^--gpu-metrics: "):
        page_url(given, "--gpu-metrics")


class Seen:
    """A watch that puts down what it was to watch."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.ended = 0

    @contextlib.contextmanager
    def over(self, engine: str, block: str, note: Callable[[str], None]) -> Iterator[None]:
        assert block.startswith(f"{engine}.")
        self.blocks.append(block)
        try:
            yield
        finally:
            self.ended += 1


def test_every_attempt_is_watched_to_its_end(tmp_path, monkeypatch):
    race, seen = Race(tmp_path, monkeypatch), Seen()
    race.campaign._watch = seen  # type: ignore[assignment]
    race.locust.stories[A] = [RUNNING, {**RUNNING, "lost_workers": ["w"]}]
    race.locust.stories[B] = [RUNNING, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        race.campaign.run()
    assert seen.blocks == [A, f"{A}.a2", B] and seen.ended == 3


def test_every_step_of_a_search_is_watched(tmp_path, monkeypatch):
    race, seen = Capacity(tmp_path, monkeypatch, {"a": 20.0, "b": 10.0}), Seen()
    race.campaign._watch = seen  # type: ignore[assignment]
    assert race.campaign.run()
    assert seen.blocks == [facts.record_id for facts in race.manifest.blocks] and seen.ended == len(seen.blocks)
