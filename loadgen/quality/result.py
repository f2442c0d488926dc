"""What the check of answers has found, as `quality.json` of a run folder keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadgen.errors import UserError
from loadgen.files import read_regular, write_file
from loadgen.statistics.proportion import Proportion
from loadgen.validation import Words

SCHEMA_VERSION = 1
MAX_BYTES = 64 << 20
QUALITY_FILE = "quality.json"
"""Its name in a run folder."""

Verdict = Literal["same", "differ", "degenerate", "unknown"]
GRAVEST: tuple[Verdict, ...] = ("degenerate", "differ", "unknown", "same")
"""Of several verdicts the first of these is that of all."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Share(_Model):
    """How many of all, with Clopper and Pearson's 95% interval."""

    count: int
    total: int
    ci95: tuple[float, float]

    @classmethod
    def of(cls, count: int, total: int) -> Self:
        """The share of `count` among `total`, which is above 0."""
        return cls(count=count, total=total, ci95=Proportion(count, total, total, 1).interval())

    @property
    def share(self) -> float:
        """The estimate."""
        return self.count / self.total


class Agreement(_Model):
    """How far two answers to each of the same prompts agree."""

    same: Share
    by_kind: dict[str, Share] = Field(default_factory=dict)
    """By the kind of prompt."""
    cut_short: int = 0
    """Second answers that end within the first one."""
    tokens_before: float | None = None
    """Tokens in common before answers part: the median of those that part; None where tokens are not told."""
    characters_before: float | None = None
    judged: int = 0
    """Answers that part at a token whose rivals' log probabilities are known."""
    clear: int = 0
    """Of these, how many part where no rounding would: see `loadgen.quality.rounding`."""


class Logprobs(_Model):
    """Log probabilities that two engines give to the same tokens after the same text, in nats."""

    tokens: int = 0
    prompts: int = 0
    mean: float | None = None
    """Of the absolute differences."""
    mean_ci95: tuple[float, float] | None = None
    """From the scatter of the prompts' means; None with one prompt."""
    p99: float | None = None
    kl: float | None = None
    """Mean Kullback-Leibler divergence of the second engine from the first over the tokens that both list."""
    mass: float | None = None
    """Share of the first engine's probability that those tokens hold, in the mean."""
    whole_texts: bool = False
    """Whether all of a continuation was compared (`prompt_logprobs`), and not only up to where answers part."""
    notes: list[Words] = Field(default_factory=list)
    """What restrains it, or why there is none."""


class Paired(_Model):
    """Two answers to each of the same tasks, right or wrong."""

    kind: Words
    total: int
    right: tuple[int, int]
    """How many the first got right, and the second."""
    only: tuple[int, int]
    """How many only the first got right, and only the second."""
    difference: float
    """Share that the second got right, less the first's."""
    ci95: tuple[float, float]
    p: float
    """McNemar's test, exact and two-sided."""


class Weights(_Model):
    """In what precision an engine holds its weights, as far as can be told."""

    words: Words
    bits: float | None = None
    """Bits a weight, in the mean."""
    quantised: bool | None = None
    """None: not told."""


class EngineQuality(_Model):
    """One engine by itself."""

    engine: str
    model: str
    verdict: Verdict
    sentence: Words
    weights: Weights
    degenerate: Words | None = None
    """What is wrong with its texts as a whole."""
    accuracy: dict[str, Share] = Field(default_factory=dict)
    """By the kind of task."""
    alone: Agreement | None = None
    """Two passes, one request at a time."""
    under_load: Agreement | None = None
    """Answers at the scenario's concurrency against those of the first pass."""
    tasks_under_load: Paired | None = None
    missing: list[Words] = Field(default_factory=list)
    """What could not be asked, and why."""
    seconds: float = 0.0


class PairQuality(_Model):
    """Two engines against each other."""

    a: str
    b: str
    verdict: Verdict
    sentence: Words
    agreement: Agreement | None = None
    logprobs: Logprobs = Logprobs()
    tasks: list[Paired] = Field(default_factory=list)
    """By kind, and all together last."""
    weights_differ: bool = False
    """Whether one engine's weights are known to be coarser, so that other answers are to be expected."""


class QualityResult(_Model):
    """All of it. `verdict` and `sentence` are what a headline takes."""

    schema_version: int = SCHEMA_VERSION
    verdict: Verdict
    sentence: Words
    """The evidence in one sentence."""
    notes: list[Words] = Field(default_factory=list)
    """What explains or restrains it, such as weights of another precision."""
    asked: dict[str, Any] = Field(default_factory=dict)
    """Seed, concurrency and how many prompts and tasks there were."""
    engines: list[EngineQuality] = Field(default_factory=list)
    pairs: list[PairQuality] = Field(default_factory=list)
    """The first engine against each other one."""
    complete: bool = True
    """Whether every engine was asked to the end."""
    answers: list[dict[str, Any]] = Field(default_factory=list)
    """Prompts and what each engine said, where they are not all the same or not all right."""


def gravest(verdicts: list[Verdict]) -> Verdict:
    """The one of all; `unknown` of none."""
    return min(verdicts, key=GRAVEST.index, default="unknown")


def save_quality(result: QualityResult, path: Path) -> None:
    """Write a result, whole or not at all. Raises UserError when it cannot be written."""
    write_file(path, result.model_dump_json(indent=2) + "\n")


def load_quality(folder: Path) -> QualityResult | None:
    """Read the result of a run folder; None where there is none. Raises UserError for one that cannot be read."""
    path = folder / QUALITY_FILE
    try:
        result = QualityResult.model_validate_json(read_regular(path, MAX_BYTES))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path}: not a readable result: {where + ': ' if where else ''}{first['msg']}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if result.schema_version > SCHEMA_VERSION:
        raise UserError(f"{path} was written by a later Bakeoff (schema {result.schema_version}): read it with that.")
    return result
