"""The verdict in words. Another language is another table of the same keys as `ENGLISH`."""

from __future__ import annotations

from collections.abc import Mapping

from loadgen.statistics.result import CellResult, Comparison, Estimate, Judged, Overall, Statistics

Texts = Mapping[str, str]

ENGLISH: Texts = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT",
    "e2e_ms": "E2E",
    "output_tokens_per_s": "output throughput",
    "requests_per_s": "requests per second",
    "slo": "SLO",
    "mean": "mean",
    "goodput_per_s": "goodput",
    "figure": "{source} {figure}",
    "clause": "{metric}: {text}",
    "join": "; ",
    "sentence": "{head}: {clauses}.",
    "a": "{a} is faster than {b}",
    "b": "{b} is faster than {a}",
    "none": "No difference that matters between {a} and {b}",
    "undecided": "Undecided between {a} and {b}",
    "invalid": "{a} and {b} cannot be compared",
    "difference": "{winner} is faster by {share}",
    "difference.mean": "{winner} is faster by {share} on average over {cells} cells",
    "opposite": "{text} (but slower in {count} of them)",
    "within_margin": "no difference beyond {margin}",
    "within_floor": "no difference beyond the load generator's own error",
    "one_repeat": "undecided, because one block of each engine cannot tell a difference from drift",
    "too_noisy": "undecided, because the blocks scatter too much",
    "multiplicity": "undecided, because among {family} comparisons at a level of {alpha} this may be chance",
    "below_floor": "undecided, because the difference is less than the load generator's own error",
    "few_requests": "undecided, because there are too few requests for this percentile",
    "trend": "undecided, because the ratio moved by more than the difference during the run",
    "order": "undecided, because drift and the order of the blocks would explain it",
    "tokens_per_event": "undecided, because the engines put different numbers of tokens into one event, which alone "
    "may change it as much",
    "mixed": "undecided, because each engine is ahead in one of the metrics",
    "no_valid_pair": "no repeat has a valid block of both engines",
    "not_measured": "not measured",
    "not_positive": "a figure of zero has no ratio",
    "further.one": "{text} (1 further repeat would probably decide it)",
    "further": "{text} ({count} further repeats would probably decide it)",
    "detectable": "{text}; a difference of {share} would have been found",
    "moved": "{metric} of {engine} moved by {change} from its first block to its last",
    "moved.claimed": "{text}, more than the difference found ({difference})",
    "family": "Holm's correction over {family} comparisons ({metrics} of every cell and of all together): if the "
    "engines were equal, a difference would be called in at most {alpha} of runs. Other metrics carry intervals of "
    "their own only.",
}


def percent(share: float) -> str:
    """A share as a percentage: one decimal, two below 1%."""
    value = 100 * share
    return f"{value:.{1 if abs(value) >= 1 else 2}f}%"


def share_words(estimate: Estimate) -> str:
    """An estimate and its interval in percent: `5.0% [4.1%, 5.9%]`."""
    if estimate.ci95 is None:
        return percent(estimate.estimate)
    low, high = map(percent, estimate.ci95)
    return f"{percent(estimate.estimate)} [{low}, {high}]"


def metric_words(key: str, texts: Texts = ENGLISH) -> str:
    """Name of a metric: `TTFT p50` for `ttft_ms.p50`; the key itself where there is no word for it."""
    source, _, figure = key.partition(".")
    name = texts.get(source, source)
    return texts["figure"].format(source=name, figure=texts.get(figure, figure)) if figure else name


def verdict_words(judged: Judged, statistics: Statistics, texts: Texts = ENGLISH) -> str:
    """One comparison's verdict without its metric: `vllm is faster by 5.0% [4.1%, 5.9%]`."""
    margin = f"{100 * statistics.settings.margin:g}%"
    if judged.faster is None:
        text = texts[judged.reason].format(margin=margin, family=statistics.family, alpha=_alpha(statistics))
    else:
        winner = statistics.a if judged.verdict == "a" else statistics.b
        over_cells = isinstance(judged, Overall) and judged.cells > 1
        template = texts["difference.mean" if over_cells else "difference"]
        cells = judged.cells if isinstance(judged, Overall) else 1
        text = template.format(winner=winner, share=share_words(judged.faster), cells=cells)
        against = judged.verdicts.get("b" if judged.verdict == "a" else "a", 0) if isinstance(judged, Overall) else 0
        if against:
            text = texts["opposite"].format(text=text, count=against)
    if judged.reason == "too_noisy" and judged.detectable is not None:
        text = texts["detectable"].format(text=text, share=percent(judged.detectable))
    if judged.further_repeats is not None:
        key = "further.one" if judged.further_repeats == 1 else "further"
        text = texts[key].format(text=text, count=judged.further_repeats)
    return text


def sentence(statistics: Statistics, cell: CellResult | None = None, texts: Texts = ENGLISH) -> str:
    """The verdict on the run, or on one cell, in one sentence: who is faster, then each headline metric."""
    judged: Mapping[str, Judged] = statistics.overall if cell is None else cell.metrics
    verdict = statistics.verdict if cell is None else cell.verdict
    clauses = [
        texts["clause"].format(metric=metric_words(key, texts), text=verdict_words(judged[key], statistics, texts))
        for key in statistics.settings.headline
        if key in judged
    ]
    head = texts[verdict].format(a=statistics.a, b=statistics.b)
    return texts["sentence"].format(head=head, clauses=texts["join"].join(clauses))


def drift_words(comparison: Comparison, statistics: Statistics, texts: Texts = ENGLISH) -> list[str]:
    """One line for each engine whose blocks moved by more than the difference claimed, if any is."""
    if comparison.drift is None or comparison.ratio is None:
        return []
    names = {"a": (statistics.a, comparison.drift.a), "b": (statistics.b, comparison.drift.b)}
    lines = []
    for side in comparison.drift.moved:
        engine, change = names[side]
        sign = "+" if change.estimate > 1 else ""
        text = texts["moved"].format(
            metric=metric_words(comparison.metric, texts), engine=engine, change=f"{sign}{percent(change.estimate - 1)}"
        )
        if comparison.verdict in ("a", "b"):
            text = texts["moved.claimed"].format(text=text, difference=percent(abs(comparison.ratio.estimate - 1)))
        lines.append(text)
    return lines


def family_words(statistics: Statistics, texts: Texts = ENGLISH) -> str:
    """What was done about many comparisons."""
    metrics = ", ".join(metric_words(key, texts) for key in statistics.settings.headline)
    return texts["family"].format(family=statistics.family, metrics=metrics, alpha=_alpha(statistics))


def _alpha(statistics: Statistics) -> str:
    return f"{100 * statistics.settings.alpha:.2g}%"
