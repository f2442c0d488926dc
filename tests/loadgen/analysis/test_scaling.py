"""What more GPUs are worth, by hand: from ratios of known size."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.analysis.scaling import families, steps
from loadgen.statistics.result import CellResult, Comparison, Estimate, Overall, Statistics


def test_engines_that_differ_in_their_gpus_alone() -> None:
    gpus = {"eight": 8, "one": 1, "lonely": 2, "two": 2, "two-again": 2, "a": 1, "b": 1}
    kinds = dict.fromkeys(("eight", "one", "two", "two-again"), "vllm") | {"lonely": "ksana", "a": "x", "b": "x"}
    assert families(gpus, kinds.__getitem__) == [["one", "two", "two-again", "eight"]]
    assert families({"b": 2, "a": 2, "c": 4}, lambda _: None) == [["b", "c"]], "of equals the first is the base"


def judged(made: Any, verdict: str, ratio: float, *ends: float) -> Any:
    return made.model_construct(verdict=verdict, ratio=Estimate(estimate=ratio, ci95=ends or None))


def compared(cells: int, a: str = "one", b: str = "two") -> Statistics:
    overall = {"output_tokens_per_s": judged(Overall, "b", 1.6, 1.5, 1.7), "ttft_ms.p50": judged(Overall, "b", 0.7)}
    each = [
        CellResult.model_construct(id=f"c{n}", metrics={"output_tokens_per_s": judged(Comparison, "a", 0.8, 0.7, 0.9)})
        for n in range(cells)
    ]
    return Statistics.model_construct(a=a, b=b, overall=overall, cells=each)


def test_a_second_gpu_that_gives_six_tenths_of_the_first() -> None:
    whole, first, second = steps([compared(2)], {"one": 1, "two": 2})
    assert (whole.cell, whole.base, whole.base_gpus, whole.engine, whole.gpus) == (None, "one", 1, "two", 2)
    assert whole.throughput == Estimate(estimate=1.6, ci95=(1.5, 1.7)) and whole.verdict == "b"
    assert whole.efficiency is not None and whole.gpu_more is not None
    assert (whole.efficiency.estimate, *(whole.efficiency.ci95 or ())) == pytest.approx((0.8, 0.75, 0.85))
    assert (whole.gpu_more.estimate, *(whole.gpu_more.ci95 or ())) == pytest.approx((0.6, 0.5, 0.7))
    assert whole.ttft == Estimate(estimate=0.7) and whole.tpot is None
    assert (first.cell, second.cell, first.verdict) == ("c0", "c1", "a")
    assert first.gpu_more is not None and first.gpu_more.estimate == pytest.approx(-0.2), "it gives less"


def test_of_several_gpus_more_each_has_its_part() -> None:
    (step,) = steps([compared(1)], {"one": 2, "two": 8})
    assert step.cell == "c0" and step.efficiency is not None and step.gpu_more is not None
    assert step.efficiency.estimate == pytest.approx(0.8 / 4)
    assert step.gpu_more.estimate == pytest.approx(-0.2 * 2 / 6), "six more, of what each of two gives"


def test_what_was_not_measured_is_absent() -> None:
    nothing = Statistics.model_construct(
        a="one", b="two", overall={}, cells=[CellResult.model_construct(id="c0", metrics={})]
    )
    (step,) = steps([nothing], {"one": 1, "two": 2})
    assert (step.verdict, step.throughput, step.efficiency, step.gpu_more, step.ttft) == ("invalid", *[None] * 4)
