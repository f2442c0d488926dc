"""What attention alone takes of a prompt on the card that raced, beside each engine's TTFT at the lowest load."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from loadgen.analysis.attention import Model, attention_flops, attention_ms, model_of, speed_at
from loadgen.analysis.prefill import PrefillFit
from loadgen.analysis.speeds import CardSpeeds, card_speeds
from loadgen.machine import is_loopback
from loadgen.message import Message, say
from loadgen.presentation import text
from loadgen.report.cells import CellView
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.serving import asked_of, settings_apart
from loadgen.statistics.result import Statistics


@dataclasses.dataclass(frozen=True, slots=True)
class AttentionRow:
    """One prompt length. Speeds in TFLOP/s of one card."""

    prompt_tokens: int
    flops: float
    kernel_tflops: float | None
    """Of our kernel; None where it was not measured with the model's head dimension."""
    library_tflops: float | None
    measured_ms: float | None
    """What attention takes at our kernel's speed."""
    limit_ms: float
    """At the card's limit."""
    ttft_ms: Mapping[str, float]
    """The median of each engine at the lowest load."""

    def shares(self, engine: str) -> tuple[float | None, float] | None:
        """Parts of an engine's TTFT that attention takes, measured and at the limit; None where it has no TTFT."""
        ttft = self.ttft_ms.get(engine)
        if ttft is None:
            return None
        return None if self.measured_ms is None else self.measured_ms / ttft, self.limit_ms / ttft


@dataclasses.dataclass(frozen=True, slots=True)
class Attention:
    """What the report says of attention."""

    missing: Message | None = None
    """Why there is nothing, and what to do; the rest is empty then."""
    card: str = ""
    cards: int = 1
    """That share the heads."""
    model: Model | None = None
    dtype: str | None = None
    """What the speeds were measured with; None where they were not."""
    limit_tflops: float = 0.0
    limit_source: str = ""
    rows: Sequence[AttentionRow] = ()
    sentences: Sequence[Message] = ()
    """What attention can and cannot explain, of each engine after the first."""

    @property
    def basis(self) -> list[Message]:
        """What the rows rest on, in sentences."""
        if self.model is None:
            return []
        told = [
            say(
                "Causal attention of one prompt, by the model's config: {layers} layers of {heads} heads, head "
                "dimension {dim}; projections and the MLP are not in it. Attention grows with the square of the prompt "
                "(in layers without a window), the rest with its length.",
                layers=self.model.layers,
                heads=self.model.heads,
                dim=self.model.qk_dim,
            )
        ]
        last = self.rows[-1]
        if last.kernel_tflops is None:
            told.append(
                say(
                    "No kernel was measured on {card} with this head dimension: only the card's limit is shown.",
                    card=self.card,
                )
            )
        else:
            told.append(
                say(
                    "Measured: Bakeoff's own kernel on {card} ({dtype}, 16,384 tokens at once; a short prompt alone "
                    "fills the card less). It reaches {kernel} TFLOP/s at {tokens} tokens, the best library {library}.",
                    card=self.card,
                    dtype=self.dtype or "",
                    kernel=text.number(last.kernel_tflops),
                    tokens=text.count(last.prompt_tokens),
                    library=text.number(last.library_tflops),
                )
            )
        told.append(
            say(
                "Limit: {limit} TFLOP/s, the dense 16-bit tensor cores by the maker's data sheet.",
                limit=text.number(self.limit_tflops),
            )
        )
        if self.cards > 1:
            told.append(say("{cards} cards share the heads.", cards=self.cards))
        return told


def attention_of(
    manifest: Manifest,
    fits: Sequence[PrefillFit],
    cells: Sequence[CellView],
    comparisons: Sequence[Statistics],
    config: Mapping[str, Any] | None = None,
) -> Attention | None:
    """Work out attention's part; None where no GPU is known to have raced, or nothing was measured by prompt length.

    Args:
        config: what `attention_config` keeps of the model's config, where it is not that of the launch records.
    """
    if not fits or not manifest.engines or not all(_on_gpu(facts, manifest) for facts in manifest.engines):
        return None
    least = [view for view in cells if view.cell is not None and view.cell.load == fits[0].load]
    if any(view.cell is not None and view.cell.extras for view in least):
        return Attention(say("Attention's part is not shown: these prompts are no whole, fresh prompts of one length."))
    card, speeds = _card(manifest)
    if isinstance(speeds, Message):
        return Attention(speeds)
    known = _config(manifest, config)
    if isinstance(known, Message):
        return Attention(known)
    try:
        model = model_of(known)
    except ValueError as error:
        return Attention(say("Attention's part is not shown: the model's config does not tell it: {what}.", what=error))
    asked = asked_of(manifest.scenario, manifest.engines[0].name)
    cards = _cards(asked)
    measured = speeds.measured(model.qk_dim, model.v_dim, _dtype(asked, known))
    rows = []
    for tokens in sorted({int(length) for fit in fits for length in fit.prompt_tokens}):
        kernel = speed_at(measured.kernel, tokens) if measured else None
        rows.append(
            AttentionRow(
                tokens,
                attention_flops(model, tokens),
                kernel,
                speed_at(measured.library, tokens) if measured else None,
                None if kernel is None else attention_ms(model, tokens, kernel, cards=cards),
                attention_ms(model, tokens, speeds.limit_tflops, cards=cards),
                {fit.engine: float(np.median(waits)) for fit in fits if (waits := _waits(fit, tokens)).size},
            )
        )
    sentences = []
    for found in comparisons:
        cell_ids = {view.id for view in least if view.cell and view.cell.prompt_tokens == rows[-1].prompt_tokens}
        verdicts = {c.metrics["ttft_ms.p50"].verdict for c in found.cells if c.id in cell_ids}
        sentences += _sentences(rows, found.a, found.b, settled=bool(verdicts) and verdicts <= {"a", "b"})
    return Attention(
        card=card,
        cards=cards,
        model=model,
        dtype=measured.dtype if measured else None,
        limit_tflops=speeds.limit_tflops,
        limit_source=speeds.limit_source,
        rows=rows,
        sentences=sentences,
    )


def _sentences(rows: Sequence[AttentionRow], a: str, b: str, *, settled: bool) -> list[Message]:
    """What attention can explain of the difference between two engines at the longest prompt."""
    both = [row for row in rows if a in row.ttft_ms and b in row.ttft_ms]
    if not both or both[-1].measured_ms is None:
        return []
    first, last = both[0], both[-1]
    fast, slow = (a, b) if last.ttft_ms[a] <= last.ttft_ms[b] else (b, a)
    difference = last.ttft_ms[slow] - last.ttft_ms[fast]
    measured = last.measured_ms or 0.0
    words: dict[str, object] = {
        "tokens": text.count(last.prompt_tokens),
        "slow": slow,
        "fast": fast,
        "difference": text.number(difference),
        "attention": text.number(measured),
        "share": f"{measured / (measured + difference):.0%}",
    }
    if difference > measured:
        told = say(
            "At {tokens} tokens {slow} takes {difference} ms longer than {fast}, more than all of attention takes at "
            "the measured speed ({attention} ms): attention alone explains it only if it ran at {share} of that speed "
            "or less in {slow}.",
            **words,
        )
    else:
        told = say(
            "At {tokens} tokens {slow} takes {difference} ms longer than {fast}, where all of attention takes "
            "{attention} ms at the measured speed: attention can explain it if it ran at about {share} of that speed "
            "in {slow}.",
            **words,
        )
    sentences = [told]
    if not settled:
        sentences.append(say("No verdict names a winner there: the difference may be chance, or too small to matter."))
    if first is not last:
        sentences.append(
            say(
                "If attention made this difference, it would be {expected} ms at {tokens} tokens; {found} ms were "
                "measured there.",
                expected=text.number(difference * first.flops / last.flops),
                tokens=text.count(first.prompt_tokens),
                found=text.number(first.ttft_ms[slow] - first.ttft_ms[fast]),
            )
        )
    return sentences


def _waits(fit: PrefillFit, tokens: int) -> Any:
    return fit.ttft_ms[fit.prompt_tokens == tokens]


def _on_gpu(facts: EngineFacts, manifest: Manifest) -> bool:
    """Whether an engine ran on a GPU of the machine that the run describes, as far as can be known."""
    host = facts.launch.get("host")
    if host == "docker":
        return bool(facts.launch.get("gpus"))
    if "threads" in facts.launch:  # as launchers of CPU engines write
        return False
    return bool(manifest.host.get("gpus")) and (host == "supervisor" or is_loopback(urlsplit(facts.base_url).hostname))


def _card(manifest: Manifest) -> tuple[str, CardSpeeds | Message]:
    names = {str(gpu.get("name")) for gpu in manifest.host.get("gpus") or []}
    if len(names) != 1:
        found = text.listing(sorted(names)) or say("none")
        return "", say(
            "Attention's part is not shown: it needs one kind of card, as nvidia-smi names it where the race runs, and "
            "found: {names}.",
            names=found,
        )
    (name,) = names
    return name, card_speeds(name) or say(
        "Attention's part is not shown: it was not measured on {card}. `make attention` measures it in a checkout on "
        "that card.",
        card=name,
    )


def _config(manifest: Manifest, given: Mapping[str, Any] | None) -> Mapping[str, Any] | Message:
    """The config that was given, else the one that all launch records agree on; none of engines set up apart in it."""
    apart = settings_apart(asked_of(manifest.scenario, facts.name) for facts in manifest.engines)
    if found := [name for name in apart if name in ("dtype", "tensor_parallel_size")]:
        return say("Attention's part is not shown: the engines differ in {what}.", what=text.listing(found))
    if given is not None:
        return given
    told = [facts.launch.get("model_config") for facts in manifest.engines]
    known = [config for config in told if isinstance(config, dict) and config]
    if not known:
        return say(
            "Attention's part is not shown: the model's config is not known. `bakeoff report {run} --model-config "
            "config.json` adds it.",
            run=manifest.run_id,
        )
    if any(other != known[0] for other in known):
        return say("Attention's part is not shown: the engines' launch records tell of different models.")
    return known[0]


def _cards(asked: Mapping[str, Any]) -> int:
    size = asked.get("tensor_parallel_size")
    return size if isinstance(size, int) and size > 0 else 1


def _dtype(asked: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    dtype = asked.get("dtype")
    known = dtype if dtype not in (None, "auto") else config.get("dtype") or config.get("torch_dtype")
    return str(known) if known else None
