import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadgen.bench.cache_reset import CacheReset
from loadgen.endpoints.seats import Seat
from loadgen.runs.manifest import Manifest
from tests.loadgen.bench.test_campaign import Race


@pytest.fixture
def server():
    """An engine that answers POST as `server.status` says; `server.asked` has what came."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.status = [], 200
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def resets(server, kind, **seat):
    url = f"http://127.0.0.1:{server.server_port}"
    seats = {"a": Seat(name="a", base_url="http://inside:1", local_url=url, kind=kind, **seat)}
    return CacheReset(seats, Manifest(run_id="r", started_at=1.0))


def test_vllm_is_asked_before_each_block_where_this_machine_reaches_it(server, monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    notes, asked = [], resets(server, "vllm", api_key_env="KEY")
    for _ in range(2):
        asked.before_block("a", notes.append)
    assert server.asked == [("/reset_prefix_cache", "Bearer secret")] * 2 and not notes


@pytest.mark.parametrize(
    ("kind", "status", "asked", "said"),
    [
        ("vllm", 404, 2, "HTTP 404): blocks rely on salted prompts. It has that route where it is started with VLLM_"),
        ("vllm", 500, 2, "a does not empty its prefix cache (POST /reset_prefix_cache: HTTP 500)"),
        ("sglang", 400, 2, "a does not empty its prefix cache (POST /flush_cache: HTTP 400)"),
        ("ksana", 200, 0, "a has no route that empties its prefix cache"),
        ("openai", 200, 0, "a has no route that empties its prefix cache"),
    ],
)
def test_one_that_has_no_such_route_or_refuses_is_told_of_once(server, kind, status, asked, said):
    server.status = status
    notes, reset = [], resets(server, kind)
    for _ in range(2):
        reset.before_block("a", notes.append)
    assert len(server.asked) == asked
    assert len(notes) == 1 and said in notes[0]


def test_one_that_does_not_answer_is_told_of_and_is_no_failure(server):
    reset = resets(server, "vllm")
    server.shutdown()
    server.server_close()
    notes = []
    reset.before_block("a", notes.append)
    assert len(notes) == 1 and "did not empty its prefix cache before a block" in notes[0]


@pytest.mark.parametrize("asks", [False, True])
def test_a_campaign_asks_only_where_its_scenario_does(tmp_path, monkeypatch, asks):
    race = Race(tmp_path, monkeypatch, reset_prefix_caches=asks, repeats=2)
    assert race.campaign.run()
    told = [text for text in race.messages if "has no route that empties its prefix cache" in text]
    assert len(told) == (2 if asks else 0), "once an engine"
    assert {status for _, _, status in race.ran()} == {"complete"}
