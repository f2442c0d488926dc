"""vLLM's KV blocks: a pool with a queue of free blocks in the order of eviction, and an index by chained hashes.

After vLLM 0.32.0: v1/core/block_pool.py, v1/core/single_type_kv_cache_manager.py and v1/core/kv_cache_manager.py. A
block that is freed keeps its content and its place in the index until it is handed out again.
"""

from __future__ import annotations

from collections import OrderedDict

from simulator.policies.sequence import Sequence


class BlockPool:
    """`blocks` blocks of `size` tokens. vLLM's own count holds one more, which it never hands out."""

    def __init__(self, blocks: int, size: int, *, caching: bool) -> None:
        self._size = size
        self._caching = caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._holders = [0] * blocks
        self._key: list[int | None] = [None] * blocks
        self._index: dict[int, dict[int, None]] = {}
        """Blocks by the hash of their tokens and of all before them. Equal blocks are kept beside each other."""

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def hits(self, sequence: Sequence) -> list[int]:
        """Return the indexed blocks that hold the beginning of a request's tokens.

        The last token is always computed, so a prompt that is known in full does without its last whole block.
        """
        found: list[int] = []
        if self._caching and sequence.ids:
            for key in self._keys(sequence, (sequence.length - 1) // self._size):
                same = self._index.get(key)
                if same is None:
                    break
                found.append(next(iter(same)))
        return found

    def needed(self, sequence: Sequence, tokens: int, hits: list[int]) -> int:
        """Return how many free blocks are used up when a request has `tokens` tokens; hits that nobody holds count."""
        more = -(-tokens // self._size) - len(sequence.table) - len(hits)
        return max(0, more) + sum(not self._holders[block] for block in hits)

    def take(self, sequence: Sequence, tokens: int, hits: list[int]) -> bool:
        """Give a request blocks for `tokens` tokens, and put those that they fill into the index.

        False: they are not there, and nothing has changed. A request that finds a block in the index before it has
        been computed computes in the same step or later, so the content is there when it is read.
        """
        if self.needed(sequence, tokens, hits) > len(self._free):
            return False
        for block in hits:
            self._free.pop(block, None)
            self._holders[block] += 1
        sequence.table += hits
        sequence.indexed += len(hits)
        while len(sequence.table) * self._size < tokens:
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._holders[block] = 1
            sequence.table.append(block)
        if self._caching and sequence.ids:
            full = min(tokens, sequence.length) // self._size
            keys = self._keys(sequence, full)
            for at in range(sequence.indexed, full):
                block = sequence.table[at]
                self._key[block] = keys[at]
                self._index.setdefault(keys[at], {})[block] = None
            sequence.indexed = max(sequence.indexed, full)
        return True

    def release(self, sequence: Sequence) -> None:
        """Take a request's blocks from it, its last first: that is the order in which they are handed out again.

        Blocks that the index does not hold go to the head of the queue, the others to its end.
        """
        blank: list[int] = []
        for block in reversed(sequence.table):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if self._key[block] is None:
                blank.append(block)
            else:
                self._free[block] = None
        for block in reversed(blank):
            self._free[block] = None
            self._free.move_to_end(block, last=False)
        sequence.table.clear()
        sequence.indexed = 0

    def reset(self) -> bool:
        """Empty the index, as vLLM does when it is asked to. False: a request holds blocks, and nothing is done."""
        if any(self._holders):
            return False
        for block in self._free:
            self._forget(block)
        return True

    def _forget(self, block: int) -> None:
        key = self._key[block]
        if key is not None:
            self._key[block] = None
            del self._index[key][block]
            if not self._index[key]:
                del self._index[key]

    def _keys(self, sequence: Sequence, count: int) -> list[int]:
        keys, size = sequence.keys, self._size
        while len(keys) < count:
            at = len(keys) * size
            keys.append(hash((keys[-1] if keys else 0, *sequence.ids[at : at + size])))
        return keys[:count]
