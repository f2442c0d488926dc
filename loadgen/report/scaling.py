"""The report's section on several GPUs: what more of them are worth, and what each of them and each user gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loadgen.analysis.scaling import Step
from loadgen.message import Message, counted, say
from loadgen.presentation import text
from loadgen.presentation.style import LOOKS, verdict_mark
from loadgen.report.cells import CellView
from loadgen.report.data import ReportData
from loadgen.report.gpus import per_gpu, per_user
from loadgen.statistics.result import Estimate

OPEN_ROWS = 16
"""A longer table is folded."""
NARROW = 0.03
"""An interval of a share that is narrower has a digit more."""
WORTH_A_WORD = 0.05
"""Of a GPU: cells that differ by less are not told apart."""


def scaling_section(data: ReportData) -> dict[str, Any] | None:
    """What the templates show: sentences, and a row for each cell and engine; None where no engine has several GPUs."""
    if not data.several_gpus:
        return None
    rows = [row for view in data.cells for row in _rows(data, view)]
    return {
        "sentences": [words for step in _overall(data) for words in step_words(data, step)],
        "compared": bool(data.scaling),
        "rows": rows,
        "open": len(rows) <= OPEN_ROWS,
    }


def _overall(data: ReportData) -> list[Step]:
    """A step each engine: over all cells, or of the only one."""
    found: dict[str, Step] = {}
    for step in data.scaling:
        found.setdefault(step.engine, step)
    return list(found.values())


def step_words(data: ReportData, step: Step) -> Iterator[Message]:
    """What more GPUs are worth to one engine, as a buyer reads it."""
    of = {
        "engine": step.engine,
        "base": step.base,
        "gpus": _gpus(step.gpus),
        "few": _gpus(step.base_gpus),
        "ratio": _times(step.throughput),
    }
    if step.throughput is None or step.verdict == "invalid":
        yield say("Nothing can be said of {engine} on {gpus} against {base} on {few}.", **of)
        return
    if step.verdict == "undecided":
        yield say(
            "Whether {engine} on {gpus} makes more output tokens than {base} on {few} at the same load is undecided: "
            "{ratio} as many.",
            **of,
        )
    elif step.verdict == "b":
        yield say(
            "{engine} on {gpus} makes {ratio} the output tokens of {base} on {few} at the same load. That is "
            "{efficiency} of what as many GPUs would make by themselves: each GPU more is worth {more} of one.",
            **of,
            efficiency=_shares(step.efficiency),
            more=_shares(step.gpu_more),
        )
    else:
        yield say(
            "{engine} on {gpus} makes no more output tokens than {base} on {few} at the same load: {ratio} as many.",
            **of,
        )
    if step.tpot is not None and step.ttft is not None:
        yield say(
            "Its TPOT is {tpot} that of {base}, its median TTFT {ttft}.",
            tpot=_times(step.tpot),
            ttft=_times(step.ttft),
            base=step.base,
        )
    own = [each for each in data.scaling if each.engine == step.engine]
    worth = sorted((each.gpu_more.estimate, each.cell) for each in own if each.gpu_more and each.cell)
    if len(worth) > 1 and worth[-1][0] - worth[0][0] >= WORTH_A_WORD:
        (least, low), (most, high) = worth[0], worth[-1]
        yield say(
            "By cell, each GPU more is worth from {least} of one ({low}) to {most} ({high}).",
            least=_share(least),
            low=data.row_label(low),
            most=_share(most),
            high=data.row_label(high),
        )


def _rows(data: ReportData, view: CellView) -> Iterator[dict[str, Any]]:
    """A row for each engine in a cell."""
    steps = {step.engine: step for step in data.scaling if step.cell == view.id}
    bases = {step.base for step in data.scaling}
    for engine, gpus in data.gpus.items():
        entry, step, look = view.engines[engine], steps.get(engine), data.look(engine)
        if entry.summary is None:
            continue
        partial = say("partial") if entry.status == "partial" else ""
        yield {
            "cell": data.row_label(view.id),
            "engine": engine,
            "seat": look,
            "glyph": LOOKS[look].glyph,
            "note": say("client-limited") if entry.limited else partial,
            "gpus": gpus,
            "throughput": text.number(entry.summary.output_tokens_per_s),
            "per_gpu": text.number(per_gpu(entry.summary, gpus)),
            "per_user": text.number(per_user(entry.summary)),
            "base": engine in bases,
            "figures": [] if step is None else _figures(step),
        }


def _figures(step: Step) -> list[tuple[str, str]]:
    """Each figure with its interval: throughput (with its verdict's sign where none is ahead), efficiency, a GPU more,
    TTFT, TPOT."""
    ratios = [(text.ratio(one.estimate), _ends(one)) if one else (text.DASH, "") for one in (step.ttft, step.tpot)]
    shares = [(_share(one.estimate), _ends_of_share(one)) if one else (text.DASH, "")
              for one in (step.efficiency, step.gpu_more)]  # fmt: skip
    throughput = (text.DASH, "")
    if step.throughput is not None:
        sign = "" if step.verdict in ("a", "b") else f"{verdict_mark(step.verdict, 0, 0).sign} "
        throughput = sign + text.ratio(step.throughput.estimate), _ends(step.throughput)
    return [throughput, *shares, *ratios]


def _gpus(count: int) -> Message:
    return counted(count, "{count} GPU", "{count} GPUs")


def _times(found: Estimate | None) -> str:
    """`1.62× [1.58–1.66]`."""
    return text.DASH if found is None else _bracketed(text.ratio(found.estimate), _ends(found))


def _shares(found: Estimate | None) -> str:
    """`81% [79%–83%]`."""
    return text.DASH if found is None else _bracketed(_share(found.estimate), _ends_of_share(found))


def _bracketed(figure: str, ends: str) -> str:
    return f"{figure} [{ends}]" if ends else figure


def _ends(found: Estimate) -> str:
    return text.ratio_interval(found.ci95, of=found.estimate)


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


def _ends_of_share(found: Estimate) -> str:
    if found.ci95 is None:
        return ""
    digits = 1 if found.ci95[1] - found.ci95[0] < NARROW else 0
    return "–".join(f"{100 * end:.{digits}f}%" for end in found.ci95)
