"""Mechanisms of a prefix cache: what it found, what it had forgotten, what it never had."""

from __future__ import annotations

from loadgen.explain.block_figures import Seen, copies_computed, found_again
from loadgen.explain.mechanism import BASICS, SIDE_BY_SIDE, Figures, Mechanism
from loadgen.message import Message, mark, say
from loadgen.presentation.text import number, percent

HITS_APART = 0.1
"""Share of the prompts, or difference between two engines' shares, that is worth a word."""
MISSED = 0.5
"""Share of what the traffic allows: an engine that had less missed its cache."""
FORGOTTEN = 0.9
"""Share found again of what was sent before; with less some was forgotten. Counts may be off by 5%, ends by a block."""
LARGEST_BLOCK = 64
"""Tokens: the end of a prefix that does not fill a block is never found."""
TWICE = 2.0
"""Equal prompts that were computed: one must be."""


def cached(seen: Seen) -> Figures | None:
    """The cache had a good part of the prompts."""
    hits = cached_share(seen)
    return {"prefix_hits": hits} if hits is not None and hits >= HITS_APART else None


def forgotten(seen: Seen) -> Figures | None:
    """Prefixes that were sent before had been evicted when they came again."""
    again = found_again(seen)
    if again is None or again >= FORGOTTEN or not _on(seen):
        return None
    shape, size = seen.cell.prefixes, seen.asked.get("kv_cache_tokens")
    found = {"found_again": again}
    if shape is not None and size:
        found |= {"prefix_tokens": shape.count * min(shape.tokens, seen.cell.prompt_tokens), "kv_cache_tokens": size}
    return found


def _forgotten(found: Figures) -> Message:
    if found.get("prefix_tokens", 0.0) > found.get("kv_cache_tokens", 0.0):
        return say(
            "its prefix cache had {share} of what was sent before: the prefixes have {tokens} tokens, the cache {size}",
            share=percent(found["found_again"]),
            tokens=number(found["prefix_tokens"]),
            size=number(found["kv_cache_tokens"]),
        )
    return say("its prefix cache had {share} of what was sent before", share=percent(found["found_again"]))


def missed(seen: Seen) -> Figures | None:
    """The cache had far less than the traffic allows, or than another engine's in the same cell."""
    hits = cached_share(seen)
    if hits is None or seen.asked.get("prefix_caching") is False or seen.cell.prefixes is not None:
        return None
    if seen.best is not None and seen.best[1] - hits >= HITS_APART:
        return {"prefix_hits": hits, "best_hits": seen.best[1]}
    sent, prompt = seen.sent(), seen.cell.prompt_tokens
    size = int(seen.asked.get("kv_block_size") or LARGEST_BLOCK)
    warm = max(0, len(sent) - max(seen.cell.streams, 1)) / len(sent) if sent else 0.0
    allowed = 0.0 if seen.cell.trace else warm * (seen.shared_tokens // size * size) / prompt
    return {"prefix_hits": hits, "allowed": allowed} if allowed >= HITS_APART and hits < MISSED * allowed else None


def _missed(found: Figures) -> Message:
    if "best_hits" in found:
        return say(
            "it missed its prefix cache: that had {own} of the prompts' tokens, another engine's {theirs}",
            own=percent(found["prefix_hits"]),
            theirs=percent(found["best_hits"]),
        )
    return say(
        "it missed its prefix cache: that had {own} of the prompts' tokens, of which {shared} were sent before",
        own=percent(found["prefix_hits"]),
        shared=percent(found["allowed"]),
    )


def computed_twice(seen: Seen) -> Figures | None:
    """Equal prompts that came together were not shared."""
    copies = copies_computed(seen)
    return {"copies_computed": copies} if copies is not None and copies >= TWICE and _on(seen) else None


def cached_share(seen: Seen) -> float | None:
    """Of the prompts' tokens the share that the cache had; None also where figures came late or are of others too."""
    sent, computed = sum(r.prompt_tokens_wanted for r in seen.sent()), seen.computed()
    return None if computed is None or not sent else min(max(1 - computed / sent, 0.0), 1.0)


def _on(seen: Seen) -> bool:
    """Whether prefix caching is known to be on: asked for, or it had something."""
    return seen.asked.get("prefix_caching") is True or (cached_share(seen) or 0.0) >= HITS_APART


CACHING = (
    Mechanism(
        "prefix_cache_used",
        mark("Prefix cache helps"),
        cached,
        lambda found: say("its prefix cache had {share} of the prompts' tokens", share=percent(found["prefix_hits"])),
        {"": f"{BASICS}#prefix-caching-the-same-beginning-is-computed-once"},
    ),
    Mechanism(
        "prefixes_evicted",
        mark("Cache misses by eviction order"),
        forgotten,
        _forgotten,
        {
            "vllm": "docs/engines/vllm.md#pool-hash-chain-and-free-queue",
            "ksana": "docs/engines/ksana.md#blocks-and-their-tree",
            "": f"{SIDE_BY_SIDE}#one-step",
        },
    ),
    Mechanism(
        "prefix_cache_missed",
        mark("Prefix cache missed"),
        missed,
        _missed,
        {"": f"{SIDE_BY_SIDE}#three-requests-that-share-a-prefix"},
    ),
    Mechanism(
        "computed_twice",
        mark("Equal prompts computed several times"),
        computed_twice,
        lambda found: say(
            "of equal prompts that came together {count} were computed", count=number(found["copies_computed"])
        ),
        {"": f"{SIDE_BY_SIDE}#one-step"},
    ),
)
