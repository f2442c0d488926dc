"""Locust's web UI as a person uses it: the start form, the tab, runs by hand, and who may not use it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.lock import engines_held
from loadgen.metrics.definitions import tpot_ms
from loadgen.runs.folder import RunFolder
from loadgen.runs.record_file import read_records
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, TOP, environment, wait_for

pytestmark = pytest.mark.integration

KEY = "sk-a-key-that-nobody-may-see"
FORM = {
    "user_count": "2",
    "spawn_rate": "2",
    "engine": "a",
    "prompt_tokens": "24",
    "output_tokens": "6",
    "requests": "8",
    "warmup_requests": "1",
    "shared_prefix_tokens": "0",
    "seed": "",
}

REQUEST = {
    **{"run_id": "r", "scenario": "s", "block": "b", "engine": "a", "requests": 8, "warmup_requests": 1, "seed": "1"},
    "cell": {"prompt_tokens": 24, "output_tokens": 6, "concurrency": 2},
}
"""What a campaign sends in one field."""


class Ui:
    """The web UI of a Locust of our own."""

    def __init__(self, url: str, runs_dir: Path, log: Path, engine_url: str = "") -> None:
        self.url, self.runs_dir, self.log, self.engine_url = url, runs_dir, log, engine_url

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=60)

    def post(self, path: str, data: dict[str, str] | None = None, **headers: str) -> requests.Response:
        return requests.post(self.url + path, data=data or {}, headers=headers, timeout=60)

    def status(self) -> dict:
        return self.get("/bakeoff/block").json()

    def swarm(self, **fields: str) -> dict:
        return self.post("/swarm", {**FORM, **fields}, Origin=self.url).json()

    def start(self, **fields: str) -> str:
        """Start a test; returns its run's id."""
        reply = self.swarm(**fields)
        assert reply["success"], reply
        return self.status()["run_id"]

    def wait_until_stopped(self) -> dict:
        wait_for(lambda: self.status()["state"] in ("ready", "stopped"), what="the end of the test")
        return self.status()

    def load(self, run_id: str):
        return RunFolder(self.runs_dir / run_id).load()


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    runs, log = folder / "runs", folder / "locust.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UI_TEST_KEY", KEY)
        with (
            FaultServer(in_process=False, fault="normal?ttft_ms=10&gap_ms=10") as a,
            FaultServer(in_process=False, fault="error_event?after=1") as broken,
            FaultServer(in_process=False) as down,
        ):
            seats = [
                Seat(name="a", base_url=a.url, api_key_env="UI_TEST_KEY"),
                Seat(name="broken", base_url=broken.url),
                Seat(name="down", base_url=down.url),
            ]
            down.kill()
            with OwnLocust(seats, runs, log) as client:
                yield Ui(client.url, runs, log, a.url)


@pytest.fixture(autouse=True)
def idle(ui):
    yield
    if ui.status()["state"] not in ("ready", "stopped"):
        ui.post("/stop")
        ui.wait_until_stopped()


def test_form_offers_our_fields_in_their_order(ui):
    page = ui.get("/").text
    options = json.loads(re.search(r"templateArgs = ({.*})", page)[1])["extra_options"]
    assert list(options) == [
        *("engine", "prompt_tokens", "output_tokens", "requests"),
        *("warmup_requests", "shared_prefix_tokens", "rate", "batch", "arrival", "short_output", "seed", "endpoint"),
    ]
    assert options["engine"]["choices"] == ["a", "broken", "down"]
    assert all(option["help_text"] for option in options.values())


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Origin": "http://evil.example"}, "Cross-origin"),
        ({"Origin": "null"}, "Cross-origin"),
        ({"Origin": "http://127.0.0.1:1"}, "Cross-origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "Cross-site"),
        ({"Sec-Fetch-Site": "same-site"}, "Cross-site"),
        ({"Host": "evil.example"}, "evil.example"),
        ({"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"}, "evil.example"),
    ],
)
@pytest.mark.parametrize("path", ["/swarm", "/stop", "/stats/reset"])
def test_foreign_posts_are_refused(ui, headers, text, path):
    reply = ui.post(path, FORM, **headers)
    assert reply.status_code == 403
    assert text in reply.text
    assert "html" not in reply.headers["Content-Type"]
    assert ui.status()["state"] in ("ready", "stopped")


@pytest.mark.parametrize("host", ["evil.example", "[", "a:b:c", "localhost.evil.example:80"])
def test_foreign_names_may_not_even_read(ui, host):
    for path in ("/", "/stats/requests", "/metrics", "/bakeoff/setup"):
        assert ui.get(path, Host=host).status_code == 403


def test_local_names_are_served(ui):
    port = ui.url.rsplit(":", 1)[1]
    for host in ("localhost", f"localhost:{port}", "127.0.0.1", "[::1]:80"):
        assert ui.get("/bakeoff/block", Host=host).status_code == 200


def test_no_answer_invites_another_origin(ui):
    paths = ["/", "/stats/requests", "/metrics", "/bakeoff/block", "/bakeoff/setup", "/nowhere", "/exceptions"]
    answers = [ui.get(path, Origin="http://evil.example") for path in paths]
    answers.append(ui.post("/swarm", FORM, Origin="http://evil.example"))
    ask = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answers.append(requests.options(ui.url + "/swarm", headers=ask, timeout=60))
    for answer in answers:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")], answer.url
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"user_count": "0"}, "user count"),
        ({"user_count": "x"}, "user count"),
        ({"rate": "2", "batch": "3"}, "either a rate or a batch"),
        ({"spawn_rate": "0"}, "spawn rate"),
        ({"spawn_rate": "inf"}, "spawn rate"),
        ({"run_time": "soon"}, "run time"),
        ({"prompt_tokens": "-1"}, "prompt tokens"),
        ({"prompt_tokens": "2"}, "prompt"),
        ({"output_tokens": ""}, "output tokens"),
        ({"requests": "many"}, "requests"),
        ({"shared_prefix_tokens": "24"}, "Shared prefix"),
        ({"engine": "nobody"}, "nobody"),
        ({"endpoint": "what"}, "endpoint: give KEY=VALUE"),
        ({"endpoint": "header=api-key=s3cret"}, "Headers are taken from the environment"),
        ({"endpoint": "header=x=env:NOT_SET_HERE"}, "NOT_SET_HERE is not set here"),
        ({"endpoint": "extra-body=[1]"}, "endpoint: extra-body: must be a JSON object"),
        ({"engine": "down"}, "Nothing answers"),
        ({"block_request": "{}x"}, "JSON"),
        ({"block_request": json.dumps({**REQUEST, "run_id": "../../etc"})}, "run_id"),
        ({"block_request": json.dumps({**REQUEST, "more": 1})}, "more"),
        ({"block_request": json.dumps({**REQUEST, "engine": "nobody"})}, "nobody"),
        ({"plan": "{}"}, "plan"),
        ({"host": "http://example.com"}, "Engine"),
    ],
)
def test_wrong_fields_are_named_and_start_nothing(ui, fields, text):
    before = sorted(ui.runs_dir.glob("*"))
    reply = ui.swarm(**fields)
    assert reply["success"] is False
    assert text in reply["message"]
    assert ui.status()["state"] in ("ready", "stopped")
    assert sorted(ui.runs_dir.glob("*")) == before


def test_runs_by_hand_one_after_the_other(ui):
    first = ui.start()
    refused = ui.swarm()
    assert refused["success"] is False
    assert "stop" in refused["message"]
    ended = ui.wait_until_stopped()
    assert ended["complete"]
    # At once, with no pause for anything to settle.
    second = ui.start(requests="6", engine="a", prompt_tokens="30")
    assert second != first
    assert ui.wait_until_stopped()["complete"]
    for run_id, wanted, prompt in ((first, 8, 24), (second, 6, 30)):
        run = ui.load(run_id)
        assert run.manifest.source == "web-ui"
        assert run.manifest.status == run.blocks[0].facts.status == "complete"
        assert len(run.blocks[0].measured) == wanted
        assert {r.prompt_tokens for r in run.blocks[0].records if r.ok} == {prompt}
    tables = ui.get("/stats/requests").json()["extended_stats"]
    assert [table["key"] for table in tables] == ["bakeoff"]
    rows = {row["run"]: row for row in tables[0]["data"]}
    assert rows[second]["requests"] == 6
    assert rows[first]["requests"] == 8
    assert rows[first]["ttft_p50"] >= 10
    told = rows[first]["tpot_mean"]  # why there is none, where the machine was too busy to read events apart
    lacking = any(tpot_ms(record) is None for record in ui.load(first).blocks[0].measured)
    assert told > 5 if isinstance(told, float) else lacking
    assert rows[first]["errors"] == 0
    for run_id in (first, second):
        limited = ui.load(run_id).blocks[0].facts.client.limited
        assert rows[run_id]["client"] in ("ok", "was the limit")
        assert not limited or rows[run_id]["client"] == "was the limit"


def test_run_by_hand_can_be_reported(ui):
    run_id = ui.start()
    ui.wait_until_stopped()
    command = [sys.executable, "-m", "loadgen", "report", run_id, "--runs-dir", str(ui.runs_dir)]
    done = subprocess.run(command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert (ui.runs_dir / run_id / "report.html").is_file()


def test_metrics_agree_with_the_records(ui):
    run_id = ui.start(requests="0", output_tokens="5", prompt_tokens="33")
    wait_for(lambda: ui.status()["measured"] >= 5, what="5 requests")
    text = ui.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    info = families["bakeoff_client_block_info"].samples
    assert [sample.labels["run_id"] for sample in info] == [run_id]
    assert families["bakeoff_client_workers"].samples[0].value == 1
    ui.post("/stop")
    ended = ui.wait_until_stopped()
    assert ui.load(run_id).manifest.status == "complete"  # without a limit, stopping is its end
    records, broken = read_records(ui.runs_dir / run_id / "requests.jsonl")
    assert not broken
    assert len(records) == ended["received"] == sum(ended["ended_workers"].values())
    families = {f.name: f for f in text_string_to_metric_families(ui.get("/metrics").text)}
    counts = {s.name: s.value for f in families.values() for s in f.samples if s.name.endswith("_lag_seconds_count")}
    assert counts["bakeoff_client_read_lag_seconds_count"] >= sum(len(r.read_lags_ns) for r in records) > 0
    assert counts["bakeoff_client_loop_lag_seconds_count"] > 0
    assert families["bakeoff_client_limited"].samples[0].labels["engine"] == "a"
    ours = {"cell": "p0033-o0005-c002", "engine": "a"}

    def value(family: str, sample: str, **labels: str) -> float:
        return sum(
            s.value
            for s in families[family].samples
            if s.name == sample and {**ours, **labels}.items() <= s.labels.items()
        )

    fine = [r for r in records if r.ok]
    name = "bakeoff_client_requests"
    assert value(name, f"{name}_total", outcome="ok") == len(fine)
    assert value(name, f"{name}_total") == len(records)
    # Where a busy machine read all tokens at once, there is no TPOT.
    for kind, timed in (("ttft", fine), ("tpot", [r for r in fine if tpot_ms(r) is not None]), ("e2e", fine)):
        name = f"bakeoff_client_{kind}_seconds"
        assert value(name, f"{name}_count") == len(timed) > 0
    assert value("bakeoff_client_output_tokens", "bakeoff_client_output_tokens_total") == sum(
        r.output_tokens or 0 for r in records
    )
    assert not families["bakeoff_client_block_info"].samples


def test_the_tab_says_that_a_block_is_still_warming_up(ui):
    run_id = ui.start(warmup_requests="5000")
    wait_for(lambda: ui.status()["received"] >= 1, what="a warm-up request")

    def row():
        return ui.get("/stats/requests").json()["extended_stats"][0]["data"][0]

    assert (row()["run"], row()["requests"]) == (run_id, "warming up")
    ui.post("/stop")
    ui.wait_until_stopped()
    assert (row()["run"], row()["requests"]) == (run_id, 0), "it was stopped before anything was measured"


def test_stop_button_half_way(ui):
    run_id = ui.start(requests="5000")
    wait_for(lambda: ui.status()["measured"] >= 3, what="3 requests")
    assert ui.post("/stop").json()["success"]
    # What is asked for while the last test still ends is refused or runs properly, and never mixes with it.
    reply = ui.swarm(requests="4")
    ui.wait_until_stopped()
    run = ui.load(run_id)
    assert run.manifest.status == "interrupted"
    assert "stopped" in run.blocks[0].facts.reason
    assert len(run.blocks[0].measured) >= 3
    if reply["success"]:
        assert ui.status()["complete"]


def test_two_starts_at_once_make_one_test(ui):
    before = set(ui.runs_dir.glob("*"))
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: ui.swarm(), range(4)))
    assert sorted(reply["success"] for reply in replies) == [False, False, False, True], replies
    assert ui.wait_until_stopped()["complete"]
    assert len(set(ui.runs_dir.glob("*")) - before) == 1


def test_a_race_and_a_test_by_hand_keep_off_one_another(ui):
    with engines_held([ui.engine_url], "A race (smoke)"):
        refused = ui.swarm()
    assert refused["success"] is False
    assert "is in use: A race (smoke) runs since" in refused["message"]
    ui.start(requests="5000")
    with (
        pytest.raises(UserError, match=r"A test in the web UI \(a\) runs since .* Stop in the web UI"),
        engines_held([ui.engine_url], "A race (smoke)"),
    ):
        pass
    wait_for(lambda: ui.status()["state"] == "running", what="the end of spawning")  # Locust loses a worker else
    ui.post("/stop")
    ui.wait_until_stopped()
    wait_for(lambda: free(ui.engine_url), what="the end of the test's hold")


def free(url: str) -> bool:
    """Whether nobody holds the engine."""
    with contextlib.suppress(UserError), engines_held([url], "A race (smoke)"):
        return True
    return False


def test_hopeless_test_stops_by_itself(ui):
    run_id = ui.start(engine="broken", user_count="1", spawn_rate="1", requests="0")
    ui.wait_until_stopped()
    run = ui.load(run_id)
    assert run.manifest.status == "failed"
    assert "every request fails" in run.blocks[0].facts.reason
    assert "the engine gave up" in run.blocks[0].facts.reason
    assert len(run.blocks[0].records) < 40


def test_lost_worker_ends_the_test_and_comes_back(ui):
    import psutil

    run_id = ui.start(requests="5000")
    wait_for(lambda: ui.status()["measured"] >= 3, what="3 requests")
    (worker,) = [p for p in psutil.Process().children() if "--worker" in p.cmdline()]
    kept = len(read_records(ui.runs_dir / run_id / "requests.jsonl")[0])
    worker.kill()
    ui.wait_until_stopped()
    run = ui.load(run_id)
    assert run.manifest.status == "failed"
    assert "worker was lost" in run.blocks[0].facts.reason
    assert len(run.blocks[0].records) >= kept
    wait_for(lambda: ui.status()["workers"] == 1, what="a new worker")
    again = ui.start()
    assert ui.wait_until_stopped()["complete"]
    assert ui.load(again).manifest.status == "complete"


def test_what_the_form_says_of_an_endpoint_is_what_it_is_asked_by(ui):
    run_id = ui.start(endpoint='api=completions,header=x-key=env:UI_TEST_KEY,extra-body={"top_k":1,"p":{"a":[1,2]}}')
    assert ui.wait_until_stopped()["complete"]
    manifest = ui.load(run_id).manifest
    assert manifest.engines[0].api == "completions"
    assert manifest.engines[0].needs["headers"] == [["x-key", "env:UI_TEST_KEY"]]
    assert KEY not in manifest.model_dump_json()


def test_api_key_shows_nowhere(ui):
    run_id = ui.start()
    pages = [ui.get(path).text for path in ("/", "/stats/requests", "/tasks", "/logs", "/metrics", "/bakeoff/block")]
    ui.wait_until_stopped()
    time.sleep(0.2)
    pages += [ui.get("/").text, ui.log.read_text()]
    pages += [path.read_text() for path in (ui.runs_dir / run_id).iterdir()]
    assert len(pages) >= 9
    assert not [page for page in pages if KEY in page]
