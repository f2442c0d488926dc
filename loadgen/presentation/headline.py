"""The verdict as a manager reads it: one plain sentence, at most three facts, and figures of a dozen characters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from loadgen.client.verdict import BLOCK_LIMITED
from loadgen.message import as_data, counted, joined, say
from loadgen.presentation.figures import (
    LARGEST,
    ahead_by,
    brief,
    farthest,
    leader,
    rounds_to_none,
    share_words,
    span_words,
    speed,
)
from loadgen.presentation.text import listing
from loadgen.scenario.cell import read_cell
from loadgen.statistics.result import Comparison, Estimate, Judged, LoadResult, Overall, Statistics
from loadgen.statistics.verdict import ALONE
from loadgen.statistics.words import margin_words, metric_words, why

Load = tuple[str, str]
"""Its unit and value."""
Cells = Sequence[tuple[str, Comparison]]
"""One metric in each cell, by the cell's id."""

MOST_FACTS = 3
TENDENCY_FROM = 3
"""Cells of one load that must lean to one side before that is worth a word."""


@dataclasses.dataclass(frozen=True, slots=True)
class Headline:
    """What is said first of a run."""

    sentence: str
    facts: tuple[str, ...] = ()
    verdict: str | None = None
    """Of the statistics; None where nothing is compared."""
    winner: str | None = None
    following: str | None = None
    """The command that would probably decide it; None where there is none, or nobody knows it."""

    def __str__(self) -> str:
        return str(self.text)

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        return joined("{a} {b}", [self.sentence, *self.facts])

    def as_json(self) -> dict[str, Any]:
        """As `summary.json` has it: English, each text with its code and values beside it."""
        told = as_data(self.sentence)
        data = told if isinstance(told, dict) else {"text": told}
        sentence = data.pop("text")
        facts = [as_data(fact) for fact in self.facts]
        return {"sentence": sentence, **data, "facts": facts, "verdict": self.verdict, "winner": self.winner} | (
            {} if self.following is None else {"following": as_data(self.following)}
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """Whether the two engines' answers are the same, as far as a headline goes."""

    verdict: str
    """`same`, `differ`, `degenerate` or `unknown`."""
    sentence: str


def headline(
    statistics: Statistics,
    *,
    repeat_s: float | None = None,
    answers: Answers | None = None,
    others: Sequence[str] = (),
) -> Headline:
    """Say the verdict on two engines.

    Args:
        statistics: the comparison.
        repeat_s: seconds that one more repeat of all cells takes; None where that is not known.
        answers: whether they say the same; answers that differ outrank who is faster.
        others: facts that must not be missed, such as blocks that were lost.
    """
    lead, sentence = _sentence(statistics, repeat_s, differ=answers is not None and answers.verdict == "differ")
    if answers is not None and answers.verdict == "degenerate":
        void = say("Nobody is faster, because the answers are worthless: {what}", what=answers.sentence)
        return Headline(void, tuple(others[:MOST_FACTS]), "invalid")
    metrics = [
        _metric(statistics, key)
        for key in statistics.settings.headline
        if key in statistics.overall and key not in lead
    ]
    first = [answers.sentence] if answers is not None and answers.verdict == "differ" else []
    last = [_scope(statistics)] if statistics.verdict in ("a", "b") or statistics.reason == "mixed" else []
    if answers is not None and answers.verdict == "same":
        last.append(answers.sentence)
    if len(metrics) > 1 and len(first) + len(others) + len(metrics) + len(last) > MOST_FACTS:
        metrics = [joined("{a}; {b}", metrics)]
    facts = [*first, *others, *(say("{fact}.", fact=fact) for fact in metrics), *last]
    winner = {"a": statistics.a, "b": statistics.b}.get(statistics.verdict)
    return Headline(sentence, tuple(facts[:MOST_FACTS]), statistics.verdict, winner)


def _sentence(statistics: Statistics, repeat_s: float | None, *, differ: bool) -> tuple[list[str], str]:
    """The first sentence, and the metrics that it tells of."""
    judged = {key: statistics.overall[key] for key in statistics.settings.headline if key in statistics.overall}
    names = {"a": statistics.a, "b": statistics.b}
    led = [key for key, one in judged.items() if one.verdict in ("a", "b") and one.faster is not None]
    if statistics.verdict in ("a", "b"):
        key = next(key for key in led if judged[key].verdict == statistics.verdict)
        one = judged[key]
        values: dict[str, Any] = {
            "winner": names[statistics.verdict],
            "metric": metric_words(key),
            "share": share_words(one.faster, named=True),
            "cells": _cells_words([one]),
        }
        if differ:
            sentence = say(
                "{winner} is faster, but its answers differ: {metric} by {share} over {cells}{against}.",
                **values,
                against=_against(one),
            )
        else:
            sentence = say(
                "{winner} is faster: {metric} by {share} over {cells}{against}.", **values, against=_against(one)
            )
        return [key], sentence
    if statistics.verdict == "none":
        even = [key for key, one in judged.items() if one.verdict == "none"]
        cells = _cells_words([judged[key] for key in even])
        values = names | {
            "margin": margin_words(statistics),
            "metrics": listing([metric_words(key) for key in even]),
            "cells": cells,
        }
        if differ:
            sentence = say(
                "No difference worth {margin} between {a} and {b}, but their answers differ: {metrics} over {cells}.",
                **values,
            )
        else:
            sentence = say("No difference worth {margin} between {a} and {b}: {metrics} over {cells}.", **values)
        return [], sentence
    if statistics.reason == "mixed":
        each = [
            say(
                "{winner} in {metric} by {share}",
                winner=names[judged[key].verdict],
                metric=metric_words(key),
                share=share_words(judged[key].faster, named=place == 0),
            )
            for place, key in enumerate(led)
        ]
        cells = _cells_words([judged[key] for key in led])
        return led, say("Each is ahead in something: {each}, over {cells}.", each=joined("{a}; {b}", each), cells=cells)
    if statistics.verdict == "invalid":
        return list(judged), say(
            "{a} and {b} cannot be compared: {why}.", **names, why=why(statistics.reason, statistics)
        )
    return [], _undecided(statistics, list(judged.values()), names, repeat_s)


def _cells_words(judged: Sequence[Overall]) -> str:
    """How many cells figures over several cells rest on."""
    fewest, most = min(one.cells for one in judged), max(one.cells for one in judged)
    if fewest == most:
        return counted(most, "{count} cell", "{count} cells")
    return say("{fewest} to {most} cells", fewest=fewest, most=most)


def _undecided(statistics: Statistics, judged: Sequence[Judged], names: dict[str, str], repeat_s: float | None) -> str:
    """What is missing, and how long that would take."""
    nearest = lacks_least(judged)
    if statistics.reason == "one_repeat" and (lost := _lost_repeats(statistics)):
        return say(
            "Not decided between {a} and {b}: one repeat counts, and one alone cannot tell a difference from drift. Of "
            "the others {why}.",
            **names,
            why=lost,
        )
    if statistics.reason == "one_repeat":
        return say(
            "Not decided between {a} and {b}: one repeat cannot tell a difference from drift. Run it again with "
            "`repeats: 4` or more{time}.",
            **names,
            time="" if repeat_s is None else say(", about {time}", time=_time(4 * repeat_s)),
        )
    if nearest is None:
        return say("Not decided between {a} and {b}: {why}.", **names, why=why(statistics.reason, statistics))
    repeats = nearest.further_repeats or 0
    values: dict[str, Any] = names | {
        "repeats": counted(repeats, "{count} more repeat", "{count} more repeats"),
        "metric": metric_words(nearest.metric),
    }
    if repeat_s is None:
        return say("Not decided between {a} and {b}: {repeats} would probably decide {metric}.", **values)
    return say(
        "Not decided between {a} and {b}: {repeats}, about {time}, would probably decide {metric}.",
        **values,
        time=_time(repeats * repeat_s),
    )


def lacks_least(judged: Sequence[Judged]) -> Judged | None:
    """Of what is not decided, what the fewest further repeats would probably decide; None where none would."""
    lacking = [one for one in judged if one.verdict == "undecided" and one.further_repeats is not None]
    return min(lacking, key=lambda one: one.further_repeats or 0, default=None)


def _lost_repeats(statistics: Statistics) -> str:
    """Why the repeats that there were beside one do not count; empty where there was only one."""
    reasons = [
        block.reason
        for cell in statistics.cells
        for block in cell.left_out
        if block.reason is not None and any(one.repeats for one in cell.metrics.values())
    ]
    limited = sum(getattr(reason, "code", "") == BLOCK_LIMITED for reason in reasons)
    if limited:
        return counted(
            limited,
            "{count} block decides nothing, because the load generator was the limit",
            "{count} blocks decide nothing, because the load generator was the limit",
        )
    return (
        counted(
            len(reasons),
            "{count} block decides nothing; the report says why",
            "{count} blocks decide nothing; the report says why",
        )
        if reasons
        else ""
    )


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    if minutes < 90:
        return counted(minutes, "{count} minute", "{count} minutes")
    return counted(math.ceil(minutes / 60), "{count} hour", "{count} hours")


def _against(one: Judged) -> str:
    """Said where single cells have the other winner."""
    verdicts = getattr(one, "verdicts", {})
    against = verdicts.get("b" if one.verdict == "a" else "a", 0)
    return say(" (but slower in {count} of them)", count=against) if against else ""


def _metric(statistics: Statistics, key: str) -> str:
    """One metric over all cells; where that is not decided, by load."""
    one, names = statistics.overall[key], {"a": statistics.a, "b": statistics.b}
    cells = [(cell.id, cell.metrics[key]) for cell in statistics.cells if key in cell.metrics]
    text: str
    if one.verdict in names:
        share, against = share_words(one.faster), _against(one)
        text = say("{winner} by {share}{against}", winner=names[one.verdict], share=share, against=against)
    elif one.verdict == "invalid":
        text = why(one.reason, statistics)
    elif any(load.metrics[key].verdict in names for load in statistics.loads):
        text = joined("{clause}, {next}", _loads_told(statistics, key, names))
    elif len(cells) > 1 and any(comparison.verdict in names for _, comparison in cells):
        text = joined("{clause}, {next}", _by_load(cells, names))
    elif one.verdict != "none" and any(_alone(load.metrics[key]) for load in statistics.loads):
        text = joined("{clause}, {next}", _alone_told(statistics, key, names))
    elif one.reason == "multiplicity" and one.ratio is not None:
        text = say(
            "perhaps {leader} by {share} (among {family} comparisons this may be chance)",
            leader=names[leader(one) or "b"],
            share=_ahead_share(one),
            family=statistics.family,
        )
    elif one.verdict == "none":
        text = say("no difference ({lead})", lead=_lead(one, names))
    else:
        text = _open(one, cells, names)
    return say("{metric}: {text}", metric=metric_words(key), text=text)


def _loads_told(statistics: Statistics, key: str, names: dict[str, str]) -> list[str]:
    """Who is ahead at each load over its cells, where one is; the other loads together."""
    told: list[str] = []
    others: dict[str, list[Load]] = {}
    for load in statistics.loads:
        one = load.metrics[key]
        if one.verdict in names:
            share, where = share_words(one.faster), loads_words([_named(load)])
            told.append(say("{winner} by {share} at {loads}", winner=names[one.verdict], share=share, loads=where))
        else:
            others.setdefault("none" if one.verdict == "none" else "undecided", []).append(_named(load))
    for kind, loads in others.items():
        what = say("no difference") if kind == "none" else say("not decided")
        told.append(say("{what} at {loads}", what=what, loads=loads_words(loads)))
    return told


def _alone_told(statistics: Statistics, key: str, names: dict[str, str]) -> list[str]:
    """At which loads one is ahead by the interval of that load alone, while the family leaves all undecided."""
    told: list[str] = []
    others: list[Load] = []
    for load in statistics.loads:
        one = load.metrics[key]
        if one.ratio is not None and _alone(one):
            told.append(
                say(
                    "perhaps {leader} by {share} at {loads} (among {family} comparisons this may be chance)",
                    leader=names[leader(one) or "b"],
                    share=_ahead_share(one),
                    loads=loads_words([_named(load)]),
                    family=statistics.family,
                )
            )
        else:
            others.append(_named(load))
    if others:
        told.append(say("{what} at {loads}", what=say("not decided"), loads=loads_words(others)))
    return told


def _alone(one: Judged) -> bool:
    """Whether a difference is beyond chance if it is all that is asked."""
    return one.p_value is not None and one.p_value <= ALONE


def _ahead_share(one: Judged) -> str:
    share, ends = ahead_by(one)
    return share_words(Estimate(estimate=share, ci95=ends))


def _named(load: LoadResult) -> Load:
    return load.unit, f"{load.value:g}"


def _open(one: Judged, cells: Cells, names: dict[str, str]) -> str:
    """What can be said of a metric that is not decided."""
    if one.ratio is None:
        return say("not decided")
    ahead = leader(one)
    loads = _leaning(cells, ahead=ahead == "b")
    if not loads or ahead is None:
        return say("not decided ({lead})", lead=_lead(one, names))
    return say(
        "not decided, though {leader} was ahead in every cell at {loads}", leader=names[ahead], loads=loads_words(loads)
    )


def _lead(one: Judged, names: dict[str, str]) -> str:
    """Who is ahead by how much, where that decides nothing."""
    ahead, share, shown = leader(one), _ahead_share(one), brief(one)
    if ahead is None or rounds_to_none(shown):
        return shown if "±" in shown else share
    if 100 * farthest(one) >= LARGEST:
        share = f"{100 * ahead_by(one)[0]:.0f}%"
        return say("{leader} ahead by {share}, its interval too wide to say more", leader=names[ahead], share=share)
    return say("{leader} ahead by {share}", leader=names[ahead], share=share)


def _by_load(cells: Cells, names: dict[str, str]) -> list[str]:
    """Who is ahead at which loads."""
    by_load = _grouped(cells)
    groups: dict[str, list[Load]] = {}
    for load, ones in by_load.items():
        found = {one.verdict for one in ones}
        sides = sorted(found & {"a", "b"})
        groups.setdefault("".join(sides) or ("none" if found == {"none"} else "undecided"), []).append(load)
    told: list[str] = []
    for kind, loads in groups.items():
        ones = [one for load in loads for one in by_load[load]]
        won = [one.faster.estimate for one in ones if one.verdict == kind and one.faster is not None]
        if won:
            what = say("{winner} by {share}", winner=names[kind], share=span_words(won))
            if len(won) < len(ones):
                every = counted(len(ones), "{count} cell", "{count} cells")
                what = say("{what} in {count} of {cells}", what=what, count=len(won), cells=every)
        elif kind == "ab":
            what = say("now {a}, now {b}", **names)
        else:
            what = say("no difference") if kind == "none" else say("not decided")
        told.append(say("{what} at {loads}", what=what, loads=loads_words(loads)))
    return told


def _leaning(cells: Cells, *, ahead: bool) -> list[Load]:
    """The loads at which every cell leans to one side; none where all do, or where a load has too few cells."""
    by_load = _grouped(cells)
    found = [
        load
        for load, ones in by_load.items()
        if len(ones) >= TENDENCY_FROM
        and all(one.ratio and (speed(one, one.ratio.estimate) > 1) == ahead for one in ones)
    ]
    return found if len(found) < len(by_load) else []


def _grouped(cells: Cells) -> dict[Load, list[Comparison]]:
    found: dict[Load, list[Comparison]] = {}
    for name, one in cells:
        cell = read_cell(name)
        load = ("", name) if cell is None else (cell.load_unit, f"{cell.load:g}")
        found.setdefault(load, []).append(one)
    return found


def loads_words(loads: Sequence[Load]) -> str:
    """Loads by unit and value, such as `1 user`, `4 and 16 users`, `2.5 req/s`."""
    units, values = {unit for unit, _ in loads}, [value for _, value in loads]
    if units == {"users"}:
        return say("1 user") if values == ["1"] else say("{loads} users", loads=listing(values))
    if units == {"batch"}:
        return say("batch {size}", size=listing(values))
    return listing([f"{value} {unit}".strip() for unit, value in loads])


def _scope(statistics: Statistics) -> str:
    """What the verdict is true of."""
    if statistics.scope == "starts":
        return say("Each engine was started {count} times, so it holds for other starts too.", count=statistics.starts)
    return say("This holds for these two processes only: no engine was restarted.")
