"""The outcome of `bakeoff run`: its figures, and whether the load generator was the limit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Self

from loadgen.client.verdict import ClientVerdict, judge
from loadgen.endpoints.endpoint import Endpoint
from loadgen.metrics.batches import send_spreads_ms
from loadgen.metrics.summary import BatchFigures, CellSummary, Distribution, summarise
from loadgen.quick.measure import QuickRun
from loadgen.traffic.plan import BlockPlan


@dataclasses.dataclass(frozen=True, slots=True)
class ClientCost:
    """What the load generator itself used while the block ran."""

    cpu_seconds: float
    events: int

    @property
    def cpu_us_per_event(self) -> float | None:
        """CPU microseconds for each content event, all of the process counted."""
        return self.cpu_seconds * 1e6 / self.events if self.events else None


@dataclasses.dataclass(frozen=True, slots=True)
class QuickResult:
    """Outcome of `bakeoff run`."""

    run: QuickRun
    summary: CellSummary
    client: ClientCost
    verdict: ClientVerdict
    """Whether the load generator was the limit."""

    @classmethod
    def of(cls, run: QuickRun) -> Self:
        """Work out the figures of a run that has ended."""
        cut = run.plan.cut_rule.cut(run.records)
        measured, batches = cut.measured(run.records), run.plan.cell.batch > 0
        return cls(
            run,
            summarise([(run.records, measured, cut.window)]),
            ClientCost(run.probe.cpu_s, run.events),
            judge(measured, run.records, {run.worker: run.probe}, send_spreads_ms(measured) if batches else None),
        )

    @property
    def plan(self) -> BlockPlan:
        """What was asked for."""
        return self.run.plan

    @property
    def failed(self) -> bool:
        """Whether any request failed, warm-up included, or nothing was measured."""
        return not self.summary.requests or bool(self.errors())

    def errors(self) -> dict[str, int]:
        """Failed requests of all phases by error kind, the most frequent first."""
        kinds = Counter(r.error for r in self.run.records if r.error is not None and not r.aborted)
        return dict(kinds.most_common())

    def last_error(self) -> str | None:
        """The newest failure in words."""
        failed = (r for r in reversed(self.run.records) if r.error is not None and not r.aborted)
        return next((f"{r.error}: {r.error_detail}" for r in failed), None)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data; the keys are documented in docs/metrics.md."""
        summary = self.summary

        endpoint: Endpoint = self.plan.endpoint
        return {
            "endpoint": {
                "base_url": endpoint.base_url,
                "kind": endpoint.kind,
                "model": endpoint.model,
                "api": endpoint.api,
                "version": endpoint.version,
            },
            "prompt_tokens": self.plan.cell.prompt_tokens,
            "output_tokens": self.plan.cell.output_tokens,
            "concurrency": self.plan.cell.concurrency or None,
            "rate": self.plan.cell.rate or None,
            "batch": self.plan.cell.batch or None,
            "arrival": self.plan.arrival if self.plan.cell.rate else None,
            "prompts": self.plan.recipe.facts(),
            "interrupted": self.run.interrupted,
            "gave_up": self.run.gave_up,
            **{
                name: _figures(getattr(summary, name))
                for name in ("ttft_ms", "ttft_from_intended_ms", "tpot_ms", "itl_ms", "e2e_ms")
            },
            "output_tokens_per_s": summary.output_tokens_per_s,
            "total_tokens_per_s": summary.total_tokens_per_s,
            "requests_per_s": summary.requests_per_s,
            "window_s": summary.window_s,
            "requests": summary.requests,
            "errors": self.errors(),
            "batches": _batches(summary.batches),
            "tokens_per_event": summary.tokens_per_event,
            "no_tpot": summary.no_tpot,
            "tpot_basis": summary.tpot_basis,
            "finish_reasons": summary.finish_reasons,
            "answer_ms": _figures(summary.answer_ms) if summary.answer_ms is not None else None,
            "reasoning_tokens": summary.reasoning_tokens,
            "client": {
                "cpu_seconds": self.client.cpu_seconds,
                "cpu_us_per_event": self.client.cpu_us_per_event,
                "events": self.client.events,
                **dataclasses.asdict(self.verdict),
            },
        }


def _figures(values: Distribution) -> dict[str, float | None]:
    return {name: value for name, value in dataclasses.asdict(values).items() if name != "count"}


def _batches(found: BatchFigures | None) -> dict[str, Any] | None:
    if found is None:
        return None
    own = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return {"count": found.latency_ms.count, **{name: _figures(values) for name, values in own.items()}}
