"""Where engines that run together run: cards, cores of the cards' NUMA nodes, memory; and the cores of each client.

What decides is a pure function; `cards_here` and `cores_here` read the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from loadgen.errors import UserError
from loadgen.hosts.placement import Place
from loadgen.machine import format_cpus, parse_cpus

VISIBLE = "CUDA_VISIBLE_DEVICES"
SYS = Path("/sys")
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader")
LEAST_CORES = 2
"""An engine keeps at least so many where a further load generator takes cores of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """One GPU."""

    index: str
    """As nvidia-smi counts them."""
    uuid: str
    node: int | None = None
    """Its NUMA node; None where nobody tells."""
    cpus: frozenset[int] = frozenset()
    """The cores beside it; empty likewise."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Places for engines and load generators."""

    slots: tuple[Place, ...]
    """As many as engines, alike in size."""
    clients: tuple[tuple[int, ...], ...]
    """The cores of each load generator."""


def plan(
    needs: Sequence[int],
    cards: Sequence[Card],
    cores: Sequence[int],
    client: Collection[int],
    *,
    node_of: Mapping[int, int],
    siblings: int = 1,
) -> Plan:
    """Divide a machine among engines.

    Args:
        needs: how many cards each engine needs; 0 without GPUs.
        cards: those there are.
        cores: those there are, hyperthreads of one core next to each other.
        client: the cores of the first load generator, none of which engines get, unless it may use them all.
        node_of: the NUMA node of each core.
        siblings: hyperthreads of each core.

    Raises:
        UserError: there are too few cards.
    """
    count, size = len(needs), max(needs)
    if size * count > len(cards):
        raise UserError(
            f"{count} engines together need {count * size} GPUs ({size} for each), and this machine has {len(cards)}: "
            "race them in turns (`placement: turns`), or give each fewer."
        )
    clients, free = _clients(count, cores, client, node_of, Counter(card.node for card in cards[: count * size]))
    own = [cards[number * size : (number + 1) * size] for number in range(count)]
    near = [[cpu for cpu in free if any(cpu in card.cpus for card in group)] for group in own]
    several = len(set(node_of.values())) > 1
    by_node = several and all(near)
    pools = near if by_node else [free] * count
    shares = _shares(pools, siblings)
    slots = []
    for group, share in zip(own, shares, strict=True):
        nodes = {card.node for card in group}
        node = nodes.pop() if by_node and len(nodes) == 1 else None
        slots.append(Place(tuple(card.index for card in group), format_cpus(share), node))
    return Plan(tuple(slots), clients)


def _clients(
    count: int,
    cores: Sequence[int],
    client: Collection[int],
    node_of: Mapping[int, int],
    cards_of: Mapping[int | None, int],
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """The cores of each load generator, and those that are left for engines."""
    first = tuple(sorted(cpu for cpu in cores if cpu in client))
    free = [cpu for cpu in cores if cpu not in client]
    if not first or len(free) < count:  # too few to be divided: all share all
        return (tuple(sorted(cores)),) * count, list(cores)
    clients = [first]
    while len(clients) < count and len(free) - len(first) >= LEAST_CORES * count:
        by_node: dict[int, list[int]] = {}
        for cpu in free:
            by_node.setdefault(node_of.get(cpu, 0), []).append(cpu)
        # Of the node that has most left for each of its cards, so that all engines get as many.
        most = max(by_node, key=lambda node: (len(by_node[node]) / (cards_of.get(node) or 0.5), node))
        taken = by_node[most][-len(first) :]
        clients.append(tuple(sorted(taken)))
        free = [cpu for cpu in free if cpu not in taken]
    return (*clients, *[first] * (count - len(clients))), free


def _shares(pools: Sequence[Sequence[int]], siblings: int) -> list[list[int]]:
    """As many cores for each, none of them twice unless there are too few; those of one pool divide it."""
    alike = [sum(set(other) & set(pool) != set() for other in pools) for pool in pools]
    size = min(len(pool) // among for pool, among in zip(pools, alike, strict=True))
    if not size:
        return [list(pool) for pool in pools]
    size = size // siblings * siblings or size
    shares: list[list[int]] = []
    for pool in pools:
        taken = {cpu for share in shares for cpu in share}
        shares.append([cpu for cpu in pool if cpu not in taken][:size])
    return shares


def cards_here(visible: str | None = None, sys: Path = SYS, ask: Callable[[], str] | None = None) -> list[Card]:
    """This machine's GPUs, those that `visible` (CUDA_VISIBLE_DEVICES) names only; none where the driver is silent."""
    try:
        rows = (ask or _ask)().splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for row in rows:
        index, uuid, address = ([cell.strip() for cell in row.split(",")] + [""] * 3)[:3]
        domain, _, rest = address.lower().partition(":")
        device = sys / "bus" / "pci" / "devices" / f"{domain[-4:]}:{rest}"
        node, cpus = _read(device / "numa_node"), _read(device / "local_cpulist")
        with contextlib.suppress(ValueError):
            known = int(node) if node else -1
            found.append(Card(index, uuid, known if known >= 0 else None, frozenset(parse_cpus(cpus) if cpus else ())))
    names = [name.strip() for name in (os.environ.get(VISIBLE, "") if visible is None else visible).split(",")]
    wanted = [name for name in names if name]
    if not wanted:
        return found
    return [card for name in wanted for card in found if name == card.index or card.uuid.startswith(name)]


def cores_here(sys: Path = SYS, cpus: Collection[int] | None = None) -> tuple[list[int], dict[int, int], int]:
    """The cores of this process, hyperthreads of one core next to each other; each one's node; hyperthreads of each."""
    usable = sorted(os.sched_getaffinity(0) if cpus is None else cpus)
    together: dict[int, frozenset[int]] = {}
    nodes: dict[int, int] = {}
    for cpu in usable:
        folder = sys / "devices" / "system" / "cpu" / f"cpu{cpu}"
        with contextlib.suppress(ValueError):
            siblings = _read(folder / "topology" / "thread_siblings_list") or f"{cpu}"
            together[cpu] = frozenset(parse_cpus(siblings))
        with contextlib.suppress(OSError):
            for path in folder.glob("node[0-9]*"):
                nodes[cpu] = int(path.name.removeprefix("node"))
    ordered = sorted(usable, key=lambda cpu: (min(together.get(cpu, {cpu})), cpu))
    return ordered, nodes, min((len(those & set(usable)) for those in together.values()), default=1)


def _ask() -> str:
    return subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=20).stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
