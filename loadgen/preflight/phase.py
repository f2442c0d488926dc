"""Preflight as a part of a race: each engine is asked when it is up, one at a time, before the first block."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from loadgen.endpoints.endpoint import ANSWER_LIMIT_S, INSPECT_LIMIT_S, Endpoint
from loadgen.endpoints.seats import Seat, common_api
from loadgen.endpoints.tokens import make_recipe
from loadgen.engines import Api
from loadgen.errors import UserError
from loadgen.hosts.base import EngineHost
from loadgen.message import say
from loadgen.preflight.compare import (
    accept_findings,
    compare,
    not_asked,
    refuse_blocking,
    refuse_missing,
    summary_line,
)
from loadgen.preflight.finding import Needs
from loadgen.preflight.sample import EngineSample
from loadgen.preflight.sampling import sample_engine
from loadgen.runs.manifest import ParityFact
from loadgen.scenario.model import Scenario
from loadgen.scenario.serving import asked_of

Keep = Callable[[list[ParityFact]], None]
OnProgress = Callable[[str, str], None]
"""Is told an engine's name and what happens to it."""
Also = Callable[[Endpoint, Api, Callable[[str], None]], None]
"""Is told an endpoint, the API by which texts can be compared, and whom to tell how it goes."""
OnMessage = Callable[[str], None]
"""Is told what a person should know."""


def needs_of(scenario: Scenario) -> Needs:
    """What a scenario asks of its engines."""
    return Needs(
        context_tokens=min((scenario.tokens_needed(cell) for cell in scenario.cells()), default=0),
        prefix_caching=scenario.serving.prefix_caching if scenario.serving else None,
        allow_short_output=scenario.allow_short_output,
        kv_cache_tokens=scenario.serving.kv_cache_tokens if scenario.serving else None,
        own={name: asked_of(scenario.model_dump(), name) for name in scenario.variants},
    )


def accepted_before(findings: Sequence[ParityFact]) -> frozenset[str]:
    """What was accepted when a run began: it need not be named again to resume it."""
    return frozenset(fact.name for fact in findings if fact.accepted)


class Preflight:
    """Compares the engines of a race. Engines take turns, or are all kept up, as they will be in the race."""

    def __init__(
        self,
        seats: Sequence[Seat],
        host: EngineHost,
        needs: Needs,
        accepted: frozenset[str],
        *,
        keep_up: bool = False,
        also: Also | None = None,
    ) -> None:
        """`also` asks each engine more, after preflight, while it is up anyway."""
        self._seats = {seat.name: seat for seat in seats}
        self._host = host
        self._needs = needs
        self.accepted = accepted
        self._keep_up = keep_up
        self._also = also
        self._nonce = secrets.token_hex(8)
        self.missing: list[str] = []
        """Engines that could not be asked."""

    def check(self, last: str, keep: Keep, on_progress: OnProgress, on_message: OnMessage) -> None:
        """Ask and compare all engines, and have the findings kept. `last`, to be raced first, is left running, or all.

        Raises UserError if an engine could not be asked, or (exit code 5) if a finding blocks the race and was not
        accepted.
        """
        findings = self.run(last, on_progress, on_message)
        try:
            keep(findings)
            if self.missing:
                refuse_missing(self.missing)
            refuse_blocking(findings)
        except BaseException:
            for name in self._seats if self._keep_up else [last]:
                self._host.stop(name)
            raise

    def run(self, last: str, on_progress: OnProgress, on_message: OnMessage) -> list[ParityFact]:
        """Ask all engines and compare them; `last` is asked last and left running, or all are that are to stay up.

        An engine that cannot be had is told, and nothing is called equal that it was not asked. Every other is stopped,
        also when this is interrupted.
        """
        found: dict[str, EngineSample] = {}
        for name in [*(name for name in self._seats if name != last), last]:
            try:
                found[name] = self._ask(name, on_progress)
            except UserError as error:
                on_message(say("Preflight could not ask {engine}: {problem}", engine=name, problem=error))
            except BaseException:
                for other in found:
                    if self._keep_up:
                        self._host.stop(other)
                raise
            finally:
                if name not in found or (name != last and not self._keep_up):
                    self._host.stop(name)
        samples = [found[name] for name in self._seats if name in found]
        self.missing = [name for name in self._seats if name not in found]
        findings = accept_findings(compare(samples, self._needs), self.accepted) if samples else []
        findings = [not_asked(fact, self.missing) for fact in findings]
        if findings and not self.missing:
            on_message(summary_line(findings))
        return findings

    def _ask(self, name: str, on_progress: OnProgress) -> EngineSample:
        self._host.start(name, lambda text: on_progress(name, text), alone=not self._keep_up)
        on_progress(name, f"preflight: asking what it serves ({INSPECT_LIMIT_S:g} s at most)")
        endpoint = self._seats[name].inspect_here(lambda text: on_progress(name, f"preflight: {text}"))
        on_progress(name, f"preflight: asking how it counts tokens ({ANSWER_LIMIT_S:g} s at most for an answer)")
        recipe = make_recipe(endpoint)
        api = common_api(self._seats.values()) or endpoint.api
        sample = sample_engine(
            endpoint,
            recipe,
            text_api=api,
            nonce=self._nonce,
            tell=lambda text: on_progress(name, f"preflight: {text} ({ANSWER_LIMIT_S:g} s at most for an answer)"),
        )
        if self._also is not None:
            self._also(endpoint, api, lambda text: on_progress(name, text))
        return sample
