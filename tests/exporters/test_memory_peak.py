"""The peak window against a list of all samples, which knows no tricks."""

from hypothesis import given
from hypothesis import strategies as st

from exporters.memory_peak import REACH_S, PeakWindow

STEPS = st.lists(
    st.tuples(st.floats(0.01, 3), st.one_of(st.none(), st.integers(0, 20))),  # seconds later: a scrape, or a sample
    max_size=80,
)


@given(STEPS, st.sampled_from([0.5, 2.0, 10.0]))
def test_it_is_the_maximum_since_the_previous_scrape_or_of_the_window(steps, window):
    peak, now, samples, previous = PeakWindow(window), 0.0, [], float("-inf")
    for pause, value in steps:
        now += pause
        if value is not None:
            peak.add(now, value)
            samples.append((now, value))
            continue
        since = max(min(previous, now - window), now - REACH_S)
        inside = [value for at, value in samples if at >= since]
        assert peak.scrape(now) == (max(inside) if inside else None)
        previous = now


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.lists(st.integers(1, 4), min_size=2, max_size=3))
def test_no_scraper_takes_a_peak_from_another(values, intervals):
    """Samples every half second, scrapers every 0.5 to 2 s: each sample is within some scrape of each scraper."""
    peak, seen = PeakWindow(2.0), [[] for _ in intervals]
    for tick in range(len(values) + 8):
        now = tick / 2
        if tick < len(values):
            peak.add(now, values[tick])
        for scraper, interval in enumerate(intervals):
            if tick % interval == 0:
                seen[scraper].append(peak.scrape(now))
    for found in seen:
        assert max(value for value in found if value is not None) == max(values)


def test_what_nobody_scrapes_is_forgotten():
    peak = PeakWindow(2.0)
    for second in range(100_000):
        peak.add(float(second), 100_000 - second)
    assert len(peak._samples) <= REACH_S + 1
