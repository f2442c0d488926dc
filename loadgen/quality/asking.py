"""Asks one engine all questions: one at a time, many at once, and one at a time again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from loadgen.endpoints.answers import Refused
from loadgen.endpoints.asker import Asker
from loadgen.endpoints.endpoint import Endpoint
from loadgen.engines import Api
from loadgen.message import counted, say
from loadgen.quality.questions import Question
from loadgen.quality.result import Weights
from loadgen.quality.said import Answers, EngineAnswers

TOP = 10
"""Likeliest tokens that are asked for at each place."""
FIRST_SHARE = 0.55
"""Of the time, at most so much goes to the first answers. Without the same answers under load and once more they tell
nothing of load, and an engine that is too slow for everything is asked less of each."""
WORTH_JUDGING_S = 1.0
BUSY_SHARE = 0.8
"""A core that is this busy with asking does not keep all the requests under way that it is to."""
Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What every engine is asked, in this order."""

    questions: tuple[Question, ...]
    concurrency: int
    limit_s: float
    from_file: frozenset[int] = frozenset()
    """Places of the questions of a file, which are asked many at once only: they take long answers."""

    @property
    def prompts(self) -> list[int]:
        """Places of what has no right answer."""
        return [place for place, question in enumerate(self.questions) if not question.rule]

    @property
    def mixed(self) -> list[int]:
        """Places of prompts and tasks in turn, without the file's: whatever time cuts off, all kinds were asked."""
        tasks = [p for p, question in enumerate(self.questions) if question.rule and p not in self.from_file]
        pairs = itertools.zip_longest(self.prompts, tasks)
        return [place for pair in pairs for place in pair if place is not None]

    def longest_first(self, places: Iterable[int]) -> list[int]:
        """Long answers first: short ones would leave fewer under way at once."""
        return sorted(places, key=lambda place: -self.questions[place].tokens)


def ask_engine(
    endpoint: Endpoint,
    api: Api,
    weights: Weights,
    asked: Asked,
    earlier: Mapping[str, EngineAnswers],
    tell: Tell,
    keep: Callable[[EngineAnswers], None],
    clock: Callable[[], float] = time.monotonic,
) -> EngineAnswers:
    """Ask an engine everything, for `limit_s` seconds at most. What it does not answer is left out, and said so.

    Args:
        endpoint: where this process reaches it.
        api: by which all engines are asked.
        weights: what is known of the engine's.
        asked: the questions.
        earlier: what other engines said, whose answers this one is to rate if it can.
        tell: is told what is being asked.
        keep: gets the answers before the first is there, so that they are not lost when this is interrupted.
        clock: in seconds.
    """
    said = EngineAnswers(endpoint.name, endpoint.model, api, weights)
    keep(said)
    with contextlib.closing(Asker(endpoint, api)) as asker:
        session = _Session(endpoint, asker, asked, said, clock, tell)
        session.find_logprobs()
        whole = session.one_by_one(asked.mixed, said.first, say("prompts and tasks, one at a time"), FIRST_SHARE)
        again = [place for place in asked.mixed if whole or place in said.first]
        session.at_once(asked.longest_first(again), say("prompts and tasks under load"))
        prompts = [place for place in asked.prompts if place in again]
        session.one_by_one(prompts, said.again, say("prompts again, one at a time"))
        session.score(earlier)
        if asked.from_file:
            session.at_once(sorted(asked.from_file), say("the file's questions"))
    said.seconds = clock() - session.began
    return said


class _Session:
    """The questions to one engine, within its time."""

    def __init__(
        self,
        endpoint: Endpoint,
        asker: Asker,
        asked: Asked,
        said: EngineAnswers,
        clock: Callable[[], float],
        tell: Tell,
    ) -> None:
        self.began = clock()
        self._engine = endpoint.engine
        self._asker = asker
        self._asked = asked
        self._said = said
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._more: dict[str, Any] = {}
        self._less: dict[str, Any] = {}
        """What asks for log probabilities without a list: the first answers have it, and under load time is dear."""

    def find_logprobs(self) -> None:
        """Find out how log probabilities are to be had: with a list of likely tokens, without, or not at all."""
        chat = self._said.api == "chat"
        ways: list[dict[str, Any]] = [{"logprobs": True, "top_logprobs": TOP}] if chat else [{"logprobs": TOP}]
        ways += [{"logprobs": True} if chat else {"logprobs": 1}]
        for fields in ways:
            try:
                answer = self._asker.ask("One, two, three,", {**self._fields(4), **fields})
            except Refused:
                continue
            if any(token.logprob is not None for token in answer.tokens):
                self._more, self._less, self._said.logprobs = fields, ways[-1], True
                return

    def one_by_one(self, places: Sequence[int], into: Answers, what: str, share: float = 1) -> bool:
        """Ask one question after the other, until so much of all the time is over; whether it was enough."""
        for done, place in enumerate(places):
            if self._is_over(share):
                break
            self._progress(what, done, places)
            self._ask(place, into, self._more if into is self._said.first else self._less)
        over = self._is_over(share)
        self._note_left(places, into, what, share)
        return not over

    def at_once(self, places: Sequence[int], what: str) -> None:
        """Ask so many at a time, the next whenever one is answered."""
        into = self._said.loaded
        left = iter(places)
        began, busy = time.perf_counter(), time.process_time()
        pool = ThreadPoolExecutor(self._asked.concurrency, thread_name_prefix="quality")
        pending: set[Future[None]] = set()
        try:
            while True:
                room = self._asked.concurrency - len(pending)
                fresh = [] if self._is_over() else list(itertools.islice(left, room))
                pending |= {pool.submit(self._ask, place, into, self._less) for place in fresh}
                if not pending:
                    break
                self._progress(what, sum(place in into for place in places), places)
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            # Else a person who has pressed Ctrl-C waits for answers that nobody wants.
            self._asker.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        took, busy = time.perf_counter() - began, time.process_time() - busy
        if took > WORTH_JUDGING_S and busy > BUSY_SHARE * took:
            self._said.missing.append(
                say(
                    "{what}: this machine was too slow to keep {count} under way",
                    what=what,
                    count=self._asked.concurrency,
                )
            )
        self._note_left(places, into, what)

    def score(self, earlier: Mapping[str, EngineAnswers]) -> None:
        """Have this engine rate the answers of the earlier ones, token by token."""
        if not self._engine.prompt_logprobs or not self._said.logprobs:
            return
        for other in earlier.values():
            found = self._said.scored.setdefault(other.engine, {})
            for done, place in enumerate(self._asked.prompts):
                self._progress(f"rating the answers of {other.engine}", done, self._asked.prompts)
                answer = other.first.get(place)
                if answer is None or not answer.tokens or self._is_over():
                    continue
                with contextlib.suppress(Refused):
                    prompt = self._asked.questions[place].prompt
                    found[place] = self._asker.score(prompt, answer.text, TOP)

    def _ask(self, place: int, into: Answers, more: dict[str, Any]) -> None:
        question = self._asked.questions[place]
        try:
            answer = self._asker.ask(question.prompt, {**self._fields(question.tokens), **more})
        except Refused as refused:
            with self._lock:
                words = str(refused)[:160]
                self._said.refusals[words] = self._said.refusals.get(words, 0) + 1
            return
        with self._lock:
            into[place] = answer

    def _progress(self, what: str, done: int, places: Sequence[int]) -> None:
        left = max(0.0, self._asked.limit_s - (self._clock() - self.began))
        self._tell(f"answers: {what}, {done} of {len(places)} ({left:.0f} s left at most)")

    def _fields(self, tokens: int) -> dict[str, Any]:
        """Greedy, and free to end: what an engine says past its end is nobody's answer."""
        return {**self._engine.sampling_fields(), "max_tokens": tokens}

    def _is_over(self, share: float = 1) -> bool:
        return self._clock() - self.began > share * self._asked.limit_s

    def _note_left(self, places: Iterable[int], into: Answers, what: str, share: float = 1) -> None:
        left = sum(place not in into for place in places)
        if not left:
            return
        unanswered = counted(left, "{count} was not answered", "{count} were not answered")
        if self._is_over(share):
            unanswered = say("{what} within {seconds} s", what=unanswered, seconds=f"{share * self._asked.limit_s:g}")
        self._said.missing.append(say("{what}: {problem}", what=what, problem=unanswered))
