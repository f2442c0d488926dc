"""Cumulative series as Prometheus' metric families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from exporters.otlp_cumulative import Family, Series

DEFAULT_BOUNDS = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
"""Of OpenTelemetry's SDKs, for metrics of which nobody chose any; KsanaLLM counts microseconds in them."""
MOST_ABOVE = 0.01
"""The share of values above the last bound up to which buckets are published: else p99 could not be read from them."""


def families(cumulated: dict[str, Family], now: float) -> Iterator[Metric]:
    """Every family; `now` is s of the clock by which points came."""
    for name, family in cumulated.items():
        series, help_text = list(family.series.values()), f"KsanaLLM's {family.metric}"
        if family.kind == "histogram":
            yield from _distribution(name, help_text, family.divisor, series, now)
            continue
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(name, help_text)
        suffix = "_total" if family.kind == "counter" else ""
        for each in series:
            metric.add_sample(name + suffix, dict(each.labels), each.value / family.divisor)
        yield metric


def resolves(series: Iterable[Series]) -> bool:
    """Whether a quantile may be read from the buckets: someone chose the bounds, and nearly all values are below."""
    bounds = {each.bounds for each in series}
    return (
        len(bounds) == 1
        and not bounds & {(), DEFAULT_BOUNDS}
        and all(each.buckets[-1] <= MOST_ABOVE * each.count for each in series)
    )


def _distribution(name: str, help_text: str, divisor: float, series: list[Series], now: float) -> Iterator[Metric]:
    with_buckets = resolves(series)
    metric = (HistogramMetricFamily if with_buckets else SummaryMetricFamily)(name, help_text)
    least = GaugeMetricFamily(f"{name}_min", f"{help_text}: least value of the last 5 to 10 s of pushes")
    greatest = GaugeMetricFamily(f"{name}_max", f"{help_text}: greatest value of the last 5 to 10 s of pushes")
    for each in series:
        labels = dict(each.labels)
        if with_buckets:
            for le, count in _cumulative_buckets(each, divisor):
                metric.add_sample(f"{name}_bucket", {**labels, "le": le}, count)
        metric.add_sample(f"{name}_count", labels, each.count)
        metric.add_sample(f"{name}_sum", labels, each.value / divisor)
        extremes = each.extremes.read(now)
        if extremes:
            least.add_sample(least.name, labels, extremes[0] / divisor)
            greatest.add_sample(greatest.name, labels, extremes[1] / divisor)
    yield from (metric, least, greatest)


def _cumulative_buckets(series: Series, divisor: float) -> Iterator[tuple[str, int]]:
    total = 0
    for bound, count in zip((*series.bounds, None), series.buckets, strict=True):
        total += count
        yield ("+Inf" if bound is None else repr(bound / divisor)), total
