"""KsanaLLM's KV blocks: a radix tree with one block an edge, swapping to the host, and the newest forgotten first.

After KsanaLLM c451219: src/ksana_llm/cache_manager/prefix_cache_manager.cpp. Blocks are alike until they are filled, so
those that are free are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from simulator.policies.sequence import Sequence


class Node:
    """A block that somebody holds or that the tree keeps. `away`: swapped requests that hold it, and where in them."""

    __slots__ = ("away", "children", "filled", "holders", "host", "parent", "tokens")

    def __init__(self) -> None:
        self.parent: Node | None = None
        self.children: dict[tuple[int, ...], Node] = {}
        self.tokens: tuple[int, ...] = ()
        self.holders: set[Sequence] = set()
        self.away: dict[Sequence, int] = {}
        self.filled = False
        self.host = False


class PrefixTree:
    """`blocks` blocks of `size` tokens on the device, and `host_blocks` to swap to."""

    def __init__(self, blocks: int, size: int, host_blocks: int, *, caching: bool) -> None:
        self.free = blocks
        self.host_free = host_blocks
        self.leaving = 0
        """Blocks that are being copied to the host: theirs is free only when that is done."""
        self._size = size
        self._caching = caching
        self._root = Node()
        self._idle: set[Node] = set()
        """In the tree, and held by nobody."""
        self._timeline: dict[Node, None] = {}
        """All blocks of the tree, in the order in which they were put there. A hit moves nothing."""

    @property
    def usable(self) -> int:
        """Free blocks, and those that are kept only for their content."""
        return self.free + len(self._idle)

    def usable_beside(self, matched: Iterable[Node]) -> int:
        """Return the usable blocks that are none of these."""
        return self.usable - sum(node in self._idle for node in matched)

    def more(self, tokens: int, held: int) -> int:
        """Return how many blocks one who holds `held` lacks for `tokens` tokens and one more."""
        return max(0, tokens // self._size + 1 - held)

    def match(self, ids: list[int]) -> list[Node]:
        """Return the blocks of the tree that hold the beginning of these tokens: whole blocks, and maybe all."""
        found: list[Node] = []
        node = self._root
        for at in range(0, len(ids) - self._size + 1, self._size) if self._caching else ():
            child = node.children.get(tuple(ids[at : at + self._size]))
            if child is None:
                break
            found.append(child)
            node = child
        return found

    def allocate(self, sequence: Sequence, count: int, matched: list[Node]) -> bool:
        """Give a request its matched blocks and `count` new ones. False: they are not there."""
        if not self._make_room(count, matched):
            return False
        for node in matched:
            self._idle.discard(node)
            node.holders.add(sequence)
        sequence.table += matched
        sequence.indexed += len(matched)
        self.free -= count
        sequence.table += [Node() for _ in range(count)]
        return True

    def fill(self, sequence: Sequence) -> None:
        """Put the blocks that a step has filled into the tree; one that is there already takes the new one's place."""
        if not (self._caching and sequence.ids):
            return
        for at in range(sequence.indexed, sequence.computed // self._size):
            node: Node = sequence.table[at]
            node.tokens = tuple(sequence.ids[at * self._size : (at + 1) * self._size])
            node.filled = True
            parent = sequence.table[at - 1] if at else self._root
            same = parent.children.get(node.tokens)
            if same is None:
                self._plant(node, parent)
            else:
                self.free += 1
                sequence.table[at] = node = same
                self._idle.discard(node)
            node.holders.add(sequence)
            sequence.indexed = at + 1

    def release(self, sequence: Sequence) -> None:
        """Take a request's blocks from it; those of the tree stay there."""
        for node in sequence.table:
            if node.host:
                node.away.pop(sequence, None)
                self.host_free += not node.away
                continue
            node.holders.discard(sequence)
            node.away.pop(sequence, None)
            if node.holders or node.away:
                continue
            if node.parent is None:
                self.free += 1
            else:
                self._idle.add(node)
        sequence.table.clear()
        sequence.indexed = 0

    def swap_out(self, sequence: Sequence) -> int | None:
        """Begin to copy a request's own blocks to the host; return how many. None: the host has no room.

        What it shares with running requests stays. Its blocks leave the tree, and what hung below them is forgotten.
        """
        own: list[Node] = [n for n in reversed(sequence.table) if not n.host and len(n.holders) <= 1]
        if len(own) > self.host_free:
            return None
        for at, node in enumerate(sequence.table):
            if node.filled:
                node.holders.discard(sequence)
                node.away[sequence] = at
        for node in own:
            if node.parent is not None:
                node.parent.children.pop(node.tokens, None)
                for child in list(node.children.values()):
                    self._forget(child)
                node.parent = None
                del self._timeline[node]
            node.host = True
        self.host_free -= len(own)
        self.leaving += len(own)
        return len(own)

    def swapped_out(self) -> None:
        """Take note that what was being copied to the host is there."""
        self.free += self.leaving
        self.leaving = 0

    def missing(self, sequence: Sequence) -> int:
        """Return how many blocks a swapped request must have to come back."""
        away = sum(1 for node in sequence.table if node.host)
        return away + 1 if sequence.table and sequence.table[-1].filled else away

    def swap_in(self, sequence: Sequence) -> int | None:
        """Begin to copy a request's blocks back; return how many. None: there is no room."""
        own = [node for node in sequence.table if node.host]
        need = self.missing(sequence)
        if not self._make_room(need, ()):
            return None
        self.free -= need
        for node in own:
            node.host = False
        self.host_free += len(own)
        sequence.table += [Node() for _ in range(need - len(own))]
        return len(own)

    def swapped_in(self, sequence: Sequence) -> None:
        """Put a request's blocks that are back into the tree, as its newest; those it has already take their place."""
        parent = self._root
        for at, node in enumerate(sequence.table):
            if not node.filled:
                break
            if node.parent is None:
                same = parent.children.get(node.tokens)
                if same is None:
                    self._plant(node, parent)
                else:
                    for other, place in node.away.items():
                        other.table[place] = same
                        same.away[other] = place
                    self.free += 1
                    self._idle.discard(same)
            parent = sequence.table[at]
            parent.away.pop(sequence, None)
            parent.holders.add(sequence)

    def _plant(self, node: Node, parent: Node) -> None:
        node.parent = parent
        parent.children[node.tokens] = node
        self._timeline[node] = None

    def _make_room(self, count: int, kept: Iterable[Node]) -> bool:
        """Forget blocks until `count` are free: the newest in the tree that nobody holds, with all below it."""
        if count <= self.free:
            return True
        kept = set(kept)
        gone: list[Node] = []
        for node in reversed(self._timeline):
            if node in self._idle and node not in kept:
                self._forget_into(node, gone)
                if count <= self.free:
                    break
        for node in gone:
            del self._timeline[node]
        return count <= self.free

    def _forget(self, node: Node) -> None:
        gone: list[Node] = []
        self._forget_into(node, gone)
        for forgotten in gone:
            del self._timeline[forgotten]

    def _forget_into(self, node: Node, gone: list[Node]) -> None:
        if node.parent is not None:
            node.parent.children.pop(node.tokens, None)
        below = [node]
        while below:
            node = below.pop()
            below += node.children.values()
            if node in self._idle:
                self._idle.discard(node)
                self.free += 1
                gone.append(node)
