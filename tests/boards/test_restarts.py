"""Prometheus, each exporter and an engine are killed and started again while a block runs.

What Prometheus tells of that time afterwards, which is what the boards draw, has to be what happened: who was down is
down then and only then, gaps are gaps, counters that began again make no rate fall or leap, alerts fire and resolve.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time

import pytest

from tests.boards.live_stack import LiveStack, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

LIMIT_S = 300.0
EDGE_S = 8.0
"""A scrape comes every second, may take one, and an exporter asks once a second; a busy machine lets all wait."""
WINDOW_S = 30.0
"""That of the rules' rates."""
LOOKBACK_S = 15.0
AWAY_S = LOOKBACK_S + 8.0
RAN_IN_S = 10.0
SETTLED_S = 15.0
"""So long after an outage a rate of 10 s still has something of it."""
CALM_S = 5.0
GONE_S = 20.0
"""An outage lasts so long at least, however soon its alerts fire, so that `holds` has scrapes to speak of."""
OF_A_BUSY_MACHINE = ("ClientLimited",)


@dataclasses.dataclass
class Outage:
    """Somebody was gone from `begin` to `end`, and answered again at `back` (seconds since the Unix epoch)."""

    names: tuple[str, ...]
    begin: float
    end: float
    back: float

    def holds(self, at: float) -> bool:
        """Whether they were surely gone."""
        return self.begin + EDGE_S <= at < self.end

    def touches(self, at: float) -> bool:
        """Whether they may have been."""
        return self.begin - 1 <= at < self.back + EDGE_S


@dataclasses.dataclass
class Story:
    stack: LiveStack
    begin: float
    end: float
    engine: Outage
    pusher: Outage
    exporter: Outage
    prometheus: Outage

    def range(self, query):
        return self.stack.range(query, self.begin, self.end)

    def one(self, query):
        (samples,) = self.range(query).values()
        return samples


def firing(stack):
    return {
        (alert["alertname"], alert.get("engine") or alert.get("job"))
        for alert in stack.instant('ALERTS{alertstate="firing"}')
    }


def quiet(stack):
    """Whether no alert fires, but those that a busy machine gives."""
    return not [name for name, _ in firing(stack) if name not in OF_A_BUSY_MACHINE]


def outage(stack, names, health, expected):
    """Kill these until the expected alerts fire, start them again and wait until none does."""
    with stack.without(*names) as (begin, back):
        wait_for(lambda: firing(stack) >= expected, f"that {expected} fire", LIMIT_S)
        time.sleep(max(0.0, begin + GONE_S - time.time()))
    for name, path in health:
        stack.wait(name, path)
    answered = time.time()
    wait_for(lambda: not firing(stack) & expected, f"that {expected} resolve", LIMIT_S)
    return Outage(names, begin, back[0], answered)


@pytest.fixture(scope="module")
def story(live_stack):
    stack = live_stack
    stack.block("sim-vllm", run_id="first")
    wait_for(lambda: len(stack.instant("up == 1")) == len(stack.instant("up")) >= 6, "that all is scraped", LIMIT_S)
    wait_for(lambda: quiet(stack), "that no alert fires", LIMIT_S)
    begin = time.time()
    time.sleep(RAN_IN_S)
    engine = outage(
        stack,
        ("sim-vllm", "ksana-exporter", "gpu-exporter"),
        [("sim-vllm", "/health"), ("ksana-exporter", "/healthz")],
        {("EngineDown", "sim-vllm"), ("ScrapeStale", "sim-vllm"), ("ScrapeStale", "ksana-exporter"),
         ("ScrapeStale", "gpu-exporter")},
    )  # fmt: skip
    stack.locust.stop()
    stack.block("sim-ksana", run_id="second")
    time.sleep(max(RAN_IN_S, engine.back + SETTLED_S + CALM_S - time.time()))
    pusher = outage(
        stack,
        ("sim-ksana",),
        [("sim-ksana", "/health")],
        {("EngineDown", "sim-ksana"), ("PushStale", "sim-ksana")},
    )
    exporter = outage(
        stack, ("engine-exporter",), [("engine-exporter", "/healthz")], {("ScrapeStale", "engine-exporter")}
    )
    # What Prometheus knew last is told for a while after it has gone.
    memory = "count by (engine) (bakeoff_engine_memory_bytes)"
    seats = len(stack.seats)
    wait_for(lambda: len(stack.instant(memory)) == seats, "that the exporter has looked at all engines", LIMIT_S)
    wait_for(lambda: quiet(stack), "that no alert fires", LIMIT_S)
    with stack.without("prometheus") as (away, back):
        time.sleep(AWAY_S)
    stack.wait("prometheus", "/-/ready")
    prometheus = Outage(("prometheus",), away, back[0], time.time())
    wait_for(lambda: len(stack.instant("up == 1")) == len(stack.instant("up")) >= 6, "that all is scraped", LIMIT_S)
    time.sleep(max(EDGE_S, prometheus.back + 2 * EDGE_S - time.time()))
    assert stack.locust.status().state == "running", "the block is to outlast all of it"
    stack.locust.stop()
    return Story(stack, begin, time.time(), engine, pusher, exporter, prometheus)


def by_second(story, samples):
    """Values by whole seconds since the story began."""
    return {round(at - story.begin): value for at, value in samples}


def longest(seconds):
    """Length of the longest run of successive seconds."""
    run = most = 0
    last = None
    for second in sorted(seconds):
        run = run + 1 if last is not None and second == last + 1 else 1
        most, last = max(most, run), second
    return most


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        ("engine", 'up{job="sim-vllm"}'),
        ("engine", 'up{job="ksana-exporter"}'),
        ("engine", 'up{job="gpu-exporter"}'),
        ("exporter", 'up{job="engine-exporter"}'),
        ("engine", 'bakeoff_engine_up{engine="sim-vllm"}'),
        ("engine", 'bakeoff_engine_ready{engine="sim-vllm"}'),
        ("engine", 'bakeoff_engine_reachable{engine="sim-vllm"}'),
        ("pusher", 'bakeoff_engine_up{engine="sim-ksana"}'),
    ],
)
def test_who_was_down_is_down_then_and_only_then(story, name, selector):
    gone, samples = getattr(story, name), story.one(selector)
    assert [at for at, value in samples if gone.holds(at) and value != 0] == []
    assert any(gone.holds(at) for at, _ in samples)
    # An exporter that has just been started has asked nobody yet; a busy machine loses a scrape now and then.
    others = (gone, story.exporter) if "engine_" in selector else (gone,)
    rest = [at for at, value in samples if value == 0 and not any(each.touches(at) for each in others)]
    assert longest(by_second(story, [(at, 0.0) for at in rest])) <= 6, rest
    assert len(samples) > 60


@pytest.mark.parametrize(
    ("job", "selector", "also"),
    [
        ("sim-vllm", 'vllm:num_requests_running{engine="sim-vllm"}', None),
        ("gpu-exporter", "bakeoff_gpu_power_watts", None),
        ("ksana-exporter", "bakeoff_ksana_series", None),
        ("engine-exporter", 'bakeoff_engine_up{engine="sim-ksana"}', None),
        ("engine-exporter", 'bakeoff_engine_context_tokens{engine="sim-vllm"}', "engine"),
        ("engine-exporter", 'bakeoff_engine_memory_bytes{engine="sim-vllm",kind="rss"}', "engine"),
        ("engine-exporter", 'bakeoff_engine_memory_bytes{engine="sim-ksana",kind="rss"}', "pusher"),
    ],
)
def test_a_series_is_there_while_its_source_is_and_not_a_second_longer(story, job, selector, also):
    """`also` names the outage of an engine, of which the exporter has nothing to tell then."""
    scraped = by_second(story, story.one(f'up{{job="{job}"}}'))
    seen = by_second(story, story.one(selector))
    engine = getattr(story, also) if also else None
    # An engine that answered too late on a busy machine was down to the exporter, and tells no context.
    told = by_second(story, story.one('bakeoff_engine_up{engine="sim-vllm"}')) if "context" in selector else None
    outages = [each for each in (engine, story.exporter if job == "engine-exporter" else None) if each]
    wrong = []
    for second in range(int(story.end - story.begin)):
        at = story.begin + second
        there = scraped.get(second) == 1 and not (engine and engine.holds(at)) and (not told or told.get(second) == 1)
        if there != (second in seen) and not any(each.touches(at) and not each.holds(at) for each in outages):
            wrong.append(second)
    assert wrong == []
    assert len(seen) > 30


def test_no_series_is_told_on_while_prometheus_was_away(story):
    gone = story.prometheus
    dark = gone.begin + LOOKBACK_S + 1, gone.end - 1
    assert dark[1] - dark[0] > 5
    for query in ('{__name__!=""}',):
        assert story.stack.range(f"count({query})", *dark) == {}
    assert story.stack.range("count(up)", gone.begin - 10, gone.begin - 2) != {}
    assert story.stack.range("count(up)", gone.back + EDGE_S, story.end) != {}


CEILINGS = {
    # Four users, 64 + 16 tokens a request, and a step of the simulator takes 8 ms at least: 16 steps a request.
    "engine:generated_tokens:rate": 4 * 16 / 0.128,
    "engine:prompt_tokens:rate": 4 * 64 / 0.128,
    "engine:requests_succeeded:rate": 4 / 0.128,
    "engine:requests_running:mean": 4,
    "engine:requests_waiting:mean": 4,
    "engine:step_tokens:mean": 4 * 64 + 4,
    "engine:kv_cache_used:ratio": 1,
    "engine:prefix_cache_hits:ratio": 1,
    "client:requests_failed:ratio": 1,
}
CPUS = os.cpu_count() * 1.2
RESIDUAL = "engine:ttft_residual_seconds:mean"


def test_no_recorded_series_has_an_impossible_value(story):
    found = story.range('{__name__=~"(engine|client):.+"}')
    names = {dict(labels)["__name__"] for labels in found}
    assert names >= CEILINGS.keys() - {"engine:prefix_cache_hits:ratio"}
    impossible = []
    for labels, samples in found.items():
        name = dict(labels)["__name__"]
        # What is counted at a scrape belongs to a time that is known to a tenth.
        ceiling = CEILINGS.get(name, math.inf) * 1.1
        for at, value in samples:
            if not math.isfinite(value) or (value < 0 and name != RESIDUAL) or value > ceiling:
                impossible.append((name, dict(labels).get("engine"), round(at - story.begin), value))
    assert impossible == []


def test_no_counters_rate_falls_or_leaps(story):
    """Of every counter that was scraped: its rate is at most twice the greatest far from any outage, or 20/s more.

    Lags are left out: a stall of the machine is met by every moment in it, so that their sum grows with its square.
    """
    outages = (story.engine, story.pusher, story.exporter, story.prometheus)
    selector = '{__name__=~".+_(total|sum|count)",__name__!~".+_lag_seconds_.+",job!~"prometheus|gpu-exporter"}'
    names = {dict(labels)["__name__"] for labels in story.range(selector)}
    assert len(names) > 50
    leaps = []
    for name in names:
        for labels, samples in story.range(f'rate({{__name__="{name}"}}[10s])').items():
            assert all(math.isfinite(value) and value >= 0 for _, value in samples), (name, labels)
            calm = [
                value
                for at, value in samples
                if not any(each.begin - 1 <= at < each.back + SETTLED_S for each in outages)
            ]
            usual = max(calm, default=0.0)
            # CPU time is told in seconds a second: a leap is more than all cores together.
            limit = CPUS if "cpu_seconds" in name else max(2 * usual, usual + 20)
            leaps += [(name, round(at - story.begin), value, limit) for at, value in samples if value > limit]
    assert leaps == []


def test_alerts_fire_while_it_lasts_and_resolve(story):
    fired = {}
    for labels, samples in story.range('ALERTS{alertstate="firing"}').items():
        alert = dict(labels)
        who = alert["alertname"], alert.get("engine") or alert.get("job")
        fired.setdefault(who, []).extend(at for at, _ in samples)
    expected = {
        ("EngineDown", "sim-vllm"): story.engine,
        ("ScrapeStale", "sim-vllm"): story.engine,
        ("ScrapeStale", "ksana-exporter"): story.engine,
        ("ScrapeStale", "gpu-exporter"): story.engine,
        ("EngineDown", "sim-ksana"): story.pusher,
        ("PushStale", "sim-ksana"): story.pusher,
        ("ScrapeStale", "engine-exporter"): story.exporter,
        # Requests to an engine that is down fail; the ratio is that of half a minute.
        ("ErrorRatio", "sim-vllm"): story.engine,
        ("ErrorRatio", "sim-ksana"): story.pusher,
    }
    fired = {who: moments for who, moments in fired.items() if who[0] not in OF_A_BUSY_MACHINE}
    assert fired.keys() == expected.keys()
    for who, moments in fired.items():
        gone = expected[who]
        late = WINDOW_S if who[0] == "ErrorRatio" else 0
        assert gone.begin <= min(moments), who
        # Rules are evaluated every 5 s, and so an alert is resolved so much later.
        assert max(moments) < gone.back + EDGE_S + 10 + late, who
