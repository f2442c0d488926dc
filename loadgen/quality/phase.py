"""The check of answers as a part of a race, or alone: each engine is asked while it is up, then all are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen.endpoints.endpoint import INSPECT_LIMIT_S, Endpoint
from loadgen.endpoints.seats import Seat, common_api
from loadgen.engines import Api
from loadgen.errors import PREFLIGHT_REFUSES, UserError
from loadgen.hosts.base import EngineHost
from loadgen.message import say
from loadgen.quality.asking import Asked, ask_engine
from loadgen.quality.judge import judge
from loadgen.quality.question_file import read_questions
from loadgen.quality.questions import greedy_questions, task_questions
from loadgen.quality.result import QualityResult
from loadgen.quality.said import EngineAnswers
from loadgen.quality.weights import weights_of
from loadgen.scenario.quality import Quality

ACCEPTED_AS = "degenerate-text"
"""Preflight's name for the same finding, by which it is accepted."""


def questions_of(quality: Quality, seed: int) -> Asked:
    """All questions of a scenario. Raises UserError where its file cannot be read."""
    own = greedy_questions(seed, quality.prompts, quality.output_tokens, quality.long_words)
    own += task_questions(seed, quality.tasks, quality.long_words)
    file = quality.file
    more = read_questions(Path(file), quality.file_questions, quality.file_tokens, seed) if file is not None else []
    places = frozenset(range(len(own), len(own) + len(more)))
    return Asked((*own, *more), quality.concurrency, quality.limit_s, places)


class AnswerCheck:
    """Gathers what the engines of a race say, and judges it."""

    def __init__(
        self,
        quality: Quality,
        seed: int,
        engines: Sequence[str],
        launch: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        """`engines` are in the order of their seats; `launch` tells how one was started.

        Raises UserError where the questions' file cannot be read.
        """
        self._asked = questions_of(quality, seed)
        self._facts = {"seed": seed, **quality.model_dump(exclude_none=True)}
        self._engines = list(engines)
        self._launch = launch
        self._said: dict[str, EngineAnswers] = {}
        self._ended: set[str] = set()

    def ask(self, endpoint: Endpoint, api: Api, tell: Callable[[str], None]) -> None:
        """Ask one engine that is up."""
        launch = self._launch(endpoint.name) if self._launch is not None else None
        weights = weights_of(endpoint, launch)
        earlier = {name: said for name, said in self._said.items() if name != endpoint.name}
        ask_engine(endpoint, api, weights, self._asked, earlier, tell, self._keep)
        self._ended.add(endpoint.name)

    def _keep(self, said: EngineAnswers) -> None:
        self._said[said.engine] = said

    def result(self) -> QualityResult | None:
        """The verdict on what has been said so far; None before anything has."""
        said = [self._said[name] for name in self._engines if name in self._said]
        if not any(each.first for each in said):
            return None
        result = judge(self._asked, said, self._facts)
        return result.model_copy(update={"complete": self._ended >= set(self._engines)})


def refuse_degenerate(result: QualityResult, accepted: frozenset[str]) -> None:
    """Raise UserError (exit code 5) where an engine does not compute the model and that was not accepted."""
    if result.verdict != "degenerate" or ACCEPTED_AS in accepted:
        return
    raise UserError(
        f"The check of answers: these engines cannot be compared as they are.\n  {result.sentence}\n"
        "    What to do: look at the engine's weights, dtype and log.\n"
        f"To race them all the same, and have it said in the report: --accept {ACCEPTED_AS}",
        exit_code=PREFLIGHT_REFUSES,
    )


def ask_all(
    seats: Sequence[Seat],
    host: EngineHost,
    check: AnswerCheck,
    on_progress: Callable[[str, str], None],
    on_message: Callable[[str], None],
) -> None:
    """Start, ask and stop one engine after the other. One that cannot be had is told, and left out."""
    for seat in seats:
        try:
            host.start(seat.name, lambda text, name=seat.name: on_progress(name, text), alone=True)  # type: ignore[misc]
            on_progress(seat.name, f"asking what it serves ({INSPECT_LIMIT_S:g} s at most)")
            endpoint = seat.inspect_here()
            api = common_api(seats) or endpoint.api
            check.ask(endpoint, api, lambda text, name=seat.name: on_progress(name, text))  # type: ignore[misc]
        except UserError as error:
            on_message(say("{engine} could not be asked for answers: {problem}", engine=seat.name, problem=error))
        finally:
            host.stop(seat.name)
