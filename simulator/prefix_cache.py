"""A prefix cache of whole blocks, as vLLM's: a block counts only together with all those before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Remembers the blocks of the prompts it has seen; those longest unused go first."""

    def __init__(self, block_tokens: int, blocks: int) -> None:
        self._size = block_tokens
        self._blocks = blocks
        self._known: OrderedDict[int, None] = OrderedDict()

    def clear(self) -> None:
        """Forget all prompts."""
        self._known.clear()

    def take(self, ids: Sequence[int]) -> int:
        """Return how many leading tokens of a prompt are cached, at most all but the last; remember the prompt."""
        cached, chain, hit = 0, 0, True
        for start in range(0, len(ids) - self._size + 1, self._size):
            chain = hash((chain, *ids[start : start + self._size]))
            hit = hit and chain in self._known
            cached += self._size * hit
            self._known[chain] = None
            self._known.move_to_end(chain)
        while len(self._known) > self._blocks:
            self._known.popitem(last=False)
        return min(cached, len(ids) - 1)
