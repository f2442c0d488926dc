"""The verdict in words."""

from __future__ import annotations

from loadgen.message import Message, joined, mark, say
from loadgen.statistics.result import Comparison, Estimate, Judged, Overall, Statistics

METRICS = {
    "ttft_ms": mark("TTFT {figure}"),
    "tpot_ms": mark("TPOT {figure}"),
    "e2e_ms": mark("E2E {figure}"),
    "output_tokens_per_s": mark("output throughput"),
    "requests_per_s": mark("requests per second"),
    "slo": mark("SLO goodput"),
}
WHY = {
    "difference": mark("the difference is beyond chance"),
    "within_margin": mark("no difference beyond {margin}"),
    "within_floor": mark("no difference beyond the load generator's own error"),
    "one_repeat": mark("one block of each engine cannot tell a difference from drift"),
    "too_noisy": mark("the blocks scatter too much"),
    "multiplicity": mark("among {family} comparisons at a level of {alpha} this may be chance"),
    "below_floor": mark("the difference is less than the load generator's own error"),
    "few_requests": mark("there are too few requests for this percentile"),
    "trend": mark("the ratio moved by more than the difference during the run"),
    "order": mark("drift and the order of the blocks would explain it"),
    "tokens_per_event": mark(
        "the engines put different numbers of tokens into one event, which alone may change it as much"
    ),
    "mixed": mark("each engine is ahead in one of the metrics"),
    "no_valid_pair": mark("no repeat has a valid block of both engines"),
    "not_measured": mark("not measured"),
    "tpot_basis": mark("the stream of an engine does not tell it"),
    "not_positive": mark("a figure of zero has no ratio"),
    "answer_lengths": mark("not compared, as the engines' answers differ in length"),
}
"""Why the verdict is what it is, by reason."""
DOUBLE, MANY_REPEATS = 1.0, 100
"""Beyond these a detectable share and a number of repeats are so rough that only their size is told."""


def percent(share: float) -> str:
    """A share as a percentage: one decimal, two below 1%."""
    value = 100 * share
    return f"{value:.{1 if abs(value) >= 1 else 2}f}%"


def share_words(estimate: Estimate) -> str:
    """An estimate and its interval in percent: `5.0% [4.1%, 5.9%]`."""
    if estimate.ci95 is None:
        return percent(estimate.estimate)
    middle, low, high = share_texts(estimate.estimate, estimate.ci95, 1 if abs(estimate.estimate) >= 0.01 else 2)
    return f"{middle} [{low}, {high}]"


def share_texts(share: float, ends: tuple[float, float], digits: int) -> tuple[str, str, str]:
    """A share and the ends of its interval in percent, with so many digits more that no end looks like the share.

    With as many as asked where two more are not enough.
    """
    texts = [tuple(f"{100 * value:.{digits + more}f}%" for value in (share, *ends)) for more in range(3)]
    middle, low, high = next((found for found in texts if found[0] not in found[1:]), texts[0])
    return middle, low, high


def metric_words(key: str) -> str:
    """Name of a metric: `TTFT p50` for `ttft_ms.p50`; the key itself where there is no word for it."""
    source, _, figure = key.partition(".")
    if source not in METRICS:
        return key.replace(".", " ")
    return say(METRICS[source], figure=say("mean") if figure == "mean" else figure)


def why(reason: str, statistics: Statistics) -> Message:
    """Why a verdict is what it is."""
    return say(WHY[reason], margin=margin_words(statistics), family=statistics.family, alpha=_alpha(statistics))


def margin_words(statistics: Statistics) -> str:
    """The share up to which a difference does not matter: `2%`."""
    return f"{100 * statistics.settings.margin:g}%"


def verdict_words(judged: Judged, statistics: Statistics) -> Message:
    """One comparison's verdict without its metric: `vllm is faster by 5.0% [4.1%, 5.9%]`."""
    if judged.faster is None:
        text = why(judged.reason, statistics)
        if judged.verdict == "undecided":
            text = say("undecided, because {why}", why=text)
    else:
        winner, share = statistics.a if judged.verdict == "a" else statistics.b, share_words(judged.faster)
        text = say("{winner} is faster by {share}", winner=winner, share=share)
        if isinstance(judged, Overall):
            if judged.cells > 1:
                text = say(
                    "{winner} is faster by {share} on average over {cells} cells",
                    winner=winner,
                    share=share,
                    cells=judged.cells,
                )
            if against := judged.verdicts.get("b" if judged.verdict == "a" else "a", 0):
                text = say("{text} (but slower in {count} of them)", text=text, count=against)
    if judged.reason == "too_noisy" and judged.detectable is not None:
        if judged.detectable < DOUBLE:
            share = percent(judged.detectable)
            text = say("{text}; a difference of {share} would have been found", text=text, share=share)
        else:
            text = say("{text}; only a difference of more than a factor of two would have been found", text=text)
    if judged.further_repeats is not None and judged.further_repeats > MANY_REPEATS:
        text = say(
            "{text} (more than {count} further repeats would be needed to decide it)", text=text, count=MANY_REPEATS
        )
    elif judged.further_repeats == 1:
        text = say("{text} (1 further repeat would probably decide it)", text=text)
    elif judged.further_repeats is not None:
        text = say("{text} ({count} further repeats would probably decide it)", text=text, count=judged.further_repeats)
    return text


def drift_words(comparison: Comparison, statistics: Statistics) -> list[Message]:
    """One line for each engine whose blocks moved by more than the difference claimed, if any is."""
    if comparison.drift is None or comparison.ratio is None:
        return []
    names = {"a": (statistics.a, comparison.drift.a), "b": (statistics.b, comparison.drift.b)}
    lines = []
    for side in comparison.drift.moved:
        engine, change = names[side]
        sign = "+" if change.estimate > 1 else ""
        text = say(
            "{metric} of {engine} moved by {change} from its first block to its last",
            metric=metric_words(comparison.metric),
            engine=engine,
            change=f"{sign}{percent(change.estimate - 1)}",
        )
        if comparison.verdict in ("a", "b"):
            difference = percent(abs(comparison.ratio.estimate - 1))
            text = say("{text}, more than the difference found ({difference})", text=text, difference=difference)
        lines.append(text)
    return lines


def family_words(statistics: Statistics) -> Message:
    """What was done about many comparisons."""
    return say(
        "Holm's correction over {family} comparisons ({metrics} of every cell, and over all cells and those of each "
        "load, which share half of the level): if the engines were equal, a difference would be called in at most "
        "{alpha} of runs. Other metrics carry intervals of their own only.",
        family=statistics.family,
        metrics=joined("{a}, {b}", [metric_words(key) for key in statistics.settings.headline]),
        alpha=_alpha(statistics),
    )


def _alpha(statistics: Statistics) -> str:
    return f"{100 * statistics.settings.alpha:.2g}%"
