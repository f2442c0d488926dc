"""What was equal between the engines and what was not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadgen.message import joined, mark, say
from loadgen.preflight.finding import UNKNOWN
from loadgen.presentation.text import DASH, command_line, gibibytes, number, plain
from loadgen.record import RequestRecord
from loadgen.runs.folder import RunData
from loadgen.runs.manifest import EngineFacts, ParityFact
from loadgen.scenario.serving import asked_of, settings_apart

LONG = 160
"""Values longer than this are folded away in the report."""
APART = frozenset(
    {"version", "kind", "base_url", "argv", "env", "environment", "settings", "notes", "packages", "python"}
    | {"seat", "model_path", "cwd", "executable", "log", "yaml", "source_commit", "image", "container"}
)
"""Facts that differ from engine to engine by nature: shown, never judged."""
QUANTILES = (0, 5, 50, 95, 100)
MOST_LENGTHS = 8
"""Of a trace, which may ask for any number of lengths."""
NOISE = frozenset({"pid", "started_unix_s", "base_url", "serving", "state", "models"})
"""Launch facts of no use to a reader, or shown elsewhere."""

OF_GPUS = ("kv-cache", "launch: gpus.device_ids", "launch: gpus.count")
OF_PLACES = ("launch: cpus", "launch: placement", "launch: gpus", "launch: environment.CUDA_VISIBLE_DEVICES")
"""Facts that differ between engines that run at the same time, each at a place of its own."""
FOLLOWS = {
    "tensor_parallel_size": OF_GPUS,
    "data_parallel_size": OF_GPUS,
    "max_model_length": ("context-length", "kv-cache", "model: context length", "launch: context_tokens"),
    "max_batch_size": ("launch: parallel_sequences",),
    "kv_block_size": ("kv-cache",),
    "kv_dtype": ("kv-cache",),
    "gpu_memory_fraction": ("kv-cache",),
    "kv_cache_tokens": ("kv-cache",),
    "prefix_caching": ("prefix-caching",),
}
"""What differs because a serving setting does."""

PREFLIGHT = (
    mark("answers"),
    mark("context-length"),
    mark("prompt-tokens"),
    mark("output-length"),
    mark("degenerate-text"),
    mark("greedy-text"),
    mark("prefix-caching"),
    mark("model"),
    mark("measured-prompts"),
    mark("logprobs"),
    mark("usage"),
    mark("tokens-per-event"),
    mark("clumps"),
    mark("role-event"),
    mark("temperature"),
    mark("seed"),
    mark("top-p"),
    mark("stop"),
    mark("max-tokens"),
    mark("unknown-fields"),
)
"""The checks made before a race."""


@dataclasses.dataclass(frozen=True, slots=True)
class FairnessRow:
    """One fact, by engine."""

    check: str
    equal: bool | None
    """None: shown for the record, not something that could be equal, or could not be told."""
    detail: str
    values: dict[str, str]
    unknown: bool = False
    """Whether it could not be told if it is equal."""

    @property
    def sign(self) -> str:
        """Its verdict as one sign."""
        return "?" if self.unknown else {True: "✓", False: "≠", None: ""}[self.equal]


def fairness_rows(run: RunData, engines: Sequence[str]) -> list[FairnessRow]:
    """List the checks made before the race, what the records say, and the launch facts; what differs comes first."""
    rows = [_of_preflight(fact, engines) for fact in run.manifest.parity]
    rows += _from_records(run, engines)
    rows += _order(run, engines)
    known = {facts.name: facts for facts in run.manifest.engines}
    rows += _from_manifest([known.get(engine) for engine in engines], engines)
    apart = settings_apart(asked_of(run.manifest.scenario, engine) for engine in engines) if engines else []
    follows = {check for setting in apart for check in FOLLOWS.get(setting, ())}
    if run.manifest.placed:  # they change hands: the launch record is of the last start, "where it ran" of all
        places = {row.check for row in rows if row.check.startswith(OF_PLACES)}
        rows = [dataclasses.replace(row, equal=None) if row.check in places else row for row in rows]
    rows = [_on_purpose(row) if row.equal is False and row.check in follows else row for row in rows]
    return sorted(rows, key=lambda row: 1 if row.unknown else {False: 0, True: 2, None: 3}[row.equal])


def _on_purpose(row: FairnessRow) -> FairnessRow:
    """A difference that is the race's question: for the record, as nothing that should be equal."""
    words = say("it follows from what the scenario sets apart on purpose")
    return dataclasses.replace(row, equal=None, detail=joined("{a}; {b}", [row.detail, words]) if row.detail else words)


def _of_preflight(fact: ParityFact, engines: Sequence[str]) -> FairnessRow:
    """One finding of preflight. Of an engine alone, what is well is for the record: it equals nothing."""
    parts: list[str] = [fact.detail]
    if fact.verdict == "blocking":
        parts.append(say("accepted by name (`--accept`)") if fact.accepted else say("this stopped the race"))
    if fact.advice:
        parts.append(fact.advice)
    unknown = fact.verdict == "unknown" or _not_shown(fact)
    equal = None if unknown or (fact.equal and len(engines) < 2) else fact.equal
    values = {engine: fact.values.get(engine, DASH) for engine in engines}
    return FairnessRow(fact.name or fact.check, equal, joined("{a}; {b}", parts), values, unknown)


def _not_shown(fact: ParityFact) -> bool:
    """Whether an engine did not show it and no two others differ: manifests of before had no verdict for that."""
    known = {value.split(" (")[0] for value in fact.values.values()}
    return fact.verdict != "blocking" and bool(known & UNKNOWN) and len(known - UNKNOWN) < 2


def _from_records(run: RunData, engines: Sequence[str]) -> list[FairnessRow]:
    """Prompt and output lengths as the engines themselves reported them."""
    good: dict[str, list[RequestRecord]] = {engine: [] for engine in engines}
    for block in run.blocks:
        good[block.facts.engine] += [record for record in block.records if record.ok]
    if not any(good.values()):
        return []
    exact_prompts: dict[str, str] = {}
    exact_outputs: dict[str, str] = {}
    sources, off = {}, {"prompt": 0, "output": 0}
    for engine, records in good.items():
        counted = [r for r in records if r.prompt_tokens is not None]
        right = sum(r.prompt_tokens == r.prompt_tokens_wanted for r in counted)
        exact_prompts[engine] = _exact(right, len(records)) if records else DASH
        off["prompt"] += len(records) - right
        right = sum(map(_exact_output, records))
        exact_outputs[engine] = _exact(right, len(records)) if records else DASH
        off["output"] += len(records) - right
        sources[engine] = plain(sorted({r.token_source or "unknown" for r in records}))
    short = sorted({r.output_tokens_wanted for records in good.values() for r in records if not _exact_output(r)})
    return [
        FairnessRow(
            mark("prompt length"),
            off["prompt"] == 0,
            mark("prompt tokens that the engine itself counted, against those asked for, over all successful requests"),
            exact_prompts,
        ),
        FairnessRow(
            mark("output length"),
            off["output"] == 0,
            mark("output tokens generated, against those asked for, over all successful requests"),
            exact_outputs,
        ),
        *(
            FairnessRow(
                say("answers to {tokens} tokens asked for", tokens=f"{wanted:,d}"),
                None,
                mark("how long they are: least, 5%, median, 95%, most"),
                {engine: _distribution(records, wanted) for engine, records in good.items()},
            )
            for wanted in short[:MOST_LENGTHS]
        ),
        FairnessRow(
            mark("source of output token counts"),
            len({value for engine, value in sources.items() if good[engine]}) == 1,
            mark("usage: the server's own count; tokenizer: counted from the text"),
            sources,
        ),
    ]


def _exact_output(record: RequestRecord) -> bool:
    return record.output_tokens == record.output_tokens_wanted


def _distribution(records: Sequence[RequestRecord], wanted: int) -> str:
    """Least, 5%, median, 95% and most output tokens of the answers to so many asked for."""
    lengths = [r.output_tokens for r in records if r.output_tokens_wanted == wanted and r.output_tokens is not None]
    return joined("{a}, {b}", [number(float(one)) for one in np.percentile(lengths, QUANTILES)]) if lengths else DASH


def _exact(right: int, total: int) -> str:
    return say("{right} of {total} exact", right=f"{right:,d}", total=f"{total:,d}")


def _order(run: RunData, engines: Sequence[str]) -> list[FairnessRow]:
    """Whether each engine ran as early as the others: a machine that warms up slows whoever comes last."""
    if len(engines) < 2:
        return []
    complete = [block for block in run.blocks if block.facts.status == "complete"]
    ordered = sorted(complete, key=lambda block: block.facts.started_at)
    places: dict[str, list[int]] = {engine: [] for engine in engines}
    for place, block in enumerate(ordered, start=1):
        places[block.facts.engine].append(place)
    if not all(places.values()):
        return []
    means = {engine: sum(own) / len(own) for engine, own in places.items()}
    return [
        FairnessRow(
            mark("place in the run's order"),
            max(means.values()) - min(means.values()) <= 1,
            mark(
                "mean place of its blocks. One pass runs one engine after the other, so a machine that warms up or "
                "slows down in between counts as a difference between engines; more repeats alternate the order."
            ),
            {
                engine: say("{place} of {blocks}", place=number(mean), blocks=len(ordered))
                for engine, mean in means.items()
            },
        )
    ]


def _from_manifest(facts: Sequence[EngineFacts | None], engines: Sequence[str]) -> list[FairnessRow]:
    rows = []
    columns: list[dict[str, Any]] = [_flat(entry) for entry in facts]
    names = list(dict.fromkeys(name for column in columns for name in column))
    for name in names:
        leaf = name.rpartition(": ")[2]
        top = name.partition(": ")[2].partition(".")[0]
        values = {engine: _words(leaf, column.get(name)) for engine, column in zip(engines, columns, strict=True)}
        # Of an engine that was never seen nothing is known, and nothing unequal.
        known = {values[engine] for engine, entry in zip(engines, facts, strict=True) if entry is not None}
        apart = top in APART or leaf in APART or sum(entry is not None for entry in facts) < 2 or known == {DASH}
        rows.append(FairnessRow(name, None if apart else len(known) == 1, "", values))
    return rows


def _words(leaf: str, value: Any) -> str:
    """A fact as text, by the last part of its name."""
    if leaf == "argv":
        return command_line(value)
    if leaf.endswith("_bytes") and isinstance(value, int):
        return gibibytes(value)
    return plain(value)


def _flat(entry: EngineFacts | None) -> dict[str, Any]:
    """An engine's facts as one level of named values."""
    if entry is None:
        return {}
    flat: dict[str, Any] = {
        mark("engine: version"): entry.version,
        mark("engine: kind"): entry.kind,
        mark("engine: api"): entry.api,
        mark("engine: base_url"): entry.base_url,
        mark("model: name"): entry.model,
        mark("model: context length"): entry.context_length,
    }
    flat.update({f"prompts: {key}": value for key, value in entry.prompts.items()})
    for key, value in entry.launch.items():
        if key in NOISE:
            continue
        if isinstance(value, Mapping) and key not in APART:
            flat.update({f"launch: {key}.{inner}": item for inner, item in value.items()})
        else:
            flat[f"launch: {key}"] = value
    return flat
