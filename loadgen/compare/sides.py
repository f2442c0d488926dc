"""Which engine of which run is A and which is B, and the cells that both have."""

from __future__ import annotations

import dataclasses

from loadgen.errors import UserError
from loadgen.runs.folder import BlockData, RunData, RunFolder
from loadgen.runs.manifest import EngineFacts, Manifest
from loadgen.scenario.cell import in_order


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One engine of one run."""

    letter: str
    run: RunData
    engine: str

    @property
    def label(self) -> str:
        """Its name in tables and plots."""
        return f"{self.letter} {self.engine}"

    @property
    def manifest(self) -> Manifest:
        """Its run's."""
        return self.run.manifest

    @property
    def facts(self) -> EngineFacts | None:
        """What the manifest knows of the engine."""
        return next((facts for facts in self.manifest.engines if facts.name == self.engine), None)

    @property
    def blocks(self) -> list[BlockData]:
        """Its own blocks."""
        return [block for block in self.run.blocks if block.facts.engine == self.engine]

    @property
    def cells(self) -> set[str]:
        """Cells with a block of its own."""
        return {block.facts.cell for block in self.blocks}


@dataclasses.dataclass(frozen=True, slots=True)
class Cells:
    """The cells of two sides, each list from the shortest prompt and the lowest load on."""

    common: list[str]
    only_a: list[str]
    only_b: list[str]


def load_sides(folder_a: RunFolder, folder_b: RunFolder, a: str | None, b: str | None) -> tuple[Side, Side]:
    """Read two runs and choose an engine of each.

    Args:
        folder_a: the run that differences are taken against.
        folder_b: the other.
        a: engine of A; None for the one that both have, or the only one.
        b: engine of B.

    Raises:
        UserError: both are one run, an engine is not there, or it is not clear which one is meant.
    """
    if folder_a.path.resolve() == folder_b.path.resolve():
        raise UserError(
            f"{folder_a.path} is given twice. The engines of one run are compared by `bakeoff report`, block by block."
        )
    runs = folder_a.load(), folder_b.load()
    names = [_engines(run) for run in runs]
    chosen = _choose(names[0], names[1], a, b)
    for run, known, name in zip(runs, names, chosen, strict=True):
        if name not in known:
            raise UserError(f"Run {run.manifest.run_id} has no engine {name!r}; it has {', '.join(known) or 'none'}.")
    return Side("A", runs[0], chosen[0]), Side("B", runs[1], chosen[1])


def common_cells(a: Side, b: Side) -> Cells:
    """Match cells. Raises UserError when there is none in common."""
    common = a.cells & b.cells
    if not common:
        raise UserError(
            f"The two runs have no cell in common. A has {_listed(a.cells)}; B has {_listed(b.cells)}. "
            "Cells are compared where prompt tokens, output tokens and load are the same."
        )
    return Cells(in_order(common), in_order(a.cells - common), in_order(b.cells - common))


def _engines(run: RunData) -> list[str]:
    return list(dict.fromkeys(block.facts.engine for block in run.blocks))


def _choose(of_a: list[str], of_b: list[str], a: str | None, b: str | None) -> tuple[str, str]:
    common = [name for name in of_a if name in of_b]
    if a is None and b is None and len(common) == 1:
        return common[0], common[0]
    if a is None and b is None and len(common) > 1:
        raise UserError(
            f"Both runs have {', '.join(common)}: choose one with --engine NAME, or one of each with --a NAME --b NAME."
        )
    return _one("A", of_a, a), _one("B", of_b, b)


def _one(letter: str, names: list[str], given: str | None) -> str:
    if given is not None:
        return given
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"Run {letter} has {', '.join(names) or 'no block of any engine'}: choose one with --{letter.lower()} NAME."
    )


def _listed(cells: set[str]) -> str:
    return ", ".join(in_order(cells)) or "none"
