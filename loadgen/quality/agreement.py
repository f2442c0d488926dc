"""Holds two sets of answers to the same questions side by side. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from loadgen.endpoints.answers import Answer
from loadgen.endpoints.greedy import Divergence, divergence
from loadgen.quality.marking import is_right
from loadgen.quality.questions import Question
from loadgen.quality.result import Agreement, Paired, Share
from loadgen.quality.rounding import CLEAR_NATS, common_places, parting_nats, spoken
from loadgen.quality.said import Answers
from loadgen.statistics.paired_proportions import difference_interval, mcnemar


@dataclasses.dataclass(frozen=True, slots=True)
class Meeting:
    """Two answers to one question."""

    kind: str
    parted: Divergence
    cut_short: bool
    """Whether the second is the beginning of the first."""
    nats: float | None
    """By how much the log odds must differ for them to part there; None where they do not part, or it is not told."""

    @property
    def clear(self) -> bool:
        """Whether no rounding makes them part."""
        return self.nats is not None and self.nats > CLEAR_NATS


def meet(questions: Sequence[Question], a: Answers, b: Answers) -> dict[int, Meeting]:
    """The answers that both gave to questions without a right answer, by the question's place."""
    return {
        place: _meeting(questions[place].kind, a[place], b[place])
        for place in sorted(set(a) & set(b))
        if not questions[place].rule
    }


def _meeting(kind: str, a: Answer, b: Answer) -> Meeting:
    parted = divergence(a, b)
    nats = None
    if not parted.same:
        places = common_places(spoken(a), spoken(b))
        if places and places[-1].a.text.lstrip() != places[-1].b.text.lstrip():
            nats = parting_nats(places[-1])
    one, other = a.text.strip(), b.text.strip()
    return Meeting(kind, parted, one != other and one.startswith(other), nats)


def agreement(meetings: Mapping[int, Meeting]) -> Agreement | None:
    """What can be said of all of them; None of none."""
    if not meetings:
        return None
    all_, parted = list(meetings.values()), [each for each in meetings.values() if not each.parted.same]
    tokens = [each.parted.tokens for each in parted if each.parted.tokens is not None]
    characters = [each.parted.characters for each in parted]
    kinds = dict.fromkeys(each.kind for each in all_)
    return Agreement(
        same=_share(all_),
        by_kind={kind: _share([each for each in all_ if each.kind == kind]) for kind in kinds},
        cut_short=sum(each.cut_short for each in parted),
        tokens_before=statistics.median(tokens) if tokens else None,
        characters_before=statistics.median(characters) if characters else None,
        judged=sum(each.nats is not None for each in parted),
        clear=sum(each.clear for each in parted),
    )


def _share(meetings: Sequence[Meeting]) -> Share:
    return Share.of(sum(each.parted.same for each in meetings), len(meetings))


def marks(questions: Sequence[Question], answers: Answers) -> dict[int, bool]:
    """Which of the answers to tasks are right."""
    return {p: is_right(questions[p], a.text) for p, a in sorted(answers.items()) if questions[p].rule}


def accuracy(questions: Sequence[Question], right: Mapping[int, bool]) -> dict[str, Share]:
    """Share of right answers by kind of task."""
    kinds = dict.fromkeys(questions[place].kind for place in right)
    of_kinds = {kind: [ok for place, ok in right.items() if questions[place].kind == kind] for kind in kinds}
    return {kind: Share.of(sum(found), len(found)) for kind, found in of_kinds.items()}


def paired(kind: str, a: Mapping[int, bool], b: Mapping[int, bool]) -> Paired | None:
    """Both marks of the tasks that both answered; None where there is none."""
    places = [place for place in a if place in b]
    if not places:
        return None
    only_a = sum(a[place] and not b[place] for place in places)
    only_b = sum(b[place] and not a[place] for place in places)
    return Paired(
        kind=kind,
        total=len(places),
        right=(sum(a[place] for place in places), sum(b[place] for place in places)),
        only=(only_a, only_b),
        difference=(only_b - only_a) / len(places),
        ci95=difference_interval(only_a, only_b, len(places)),
        p=mcnemar(only_a, only_b),
    )
