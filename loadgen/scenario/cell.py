"""A cell: one point of a scenario's matrix, and the name that stands for it everywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from loadgen.scenario.shapes import Conversation, Prefixes, Step, parse_conversation, parse_prefixes, parse_step


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One point of a scenario's matrix. Cells sort by prompt, output, shared prefix, load, and what else they have."""

    prompt_tokens: int
    """Of each request; of a conversation's first turn; the mean of a trace's."""
    output_tokens: int
    concurrency: int
    """Users of a closed loop; 0 in other loads."""
    rate: float = 0.0
    """Requests a second of an open loop; 0 in other loads."""
    batch: int = 0
    """Requests that are sent at the same instant, the next as many when all have ended; 0 in other loads."""
    shared_percent: int = 0
    """How much of each prompt is the same in all."""
    step: Step | None = None
    conversation: Conversation | None = None
    trace: str = ""
    """Digest of the trace that is replayed."""
    prefixes: Prefixes | None = None

    @property
    def open_loop(self) -> bool:
        """Whether requests come by a schedule."""
        return self.rate > 0

    @property
    def load(self) -> float:
        """Users, requests a second, or requests of a batch."""
        return self.rate or self.batch or self.concurrency

    @property
    def streams(self) -> int:
        """Requests in flight at most; 0 in an open loop, which has no bound."""
        return self.batch or self.concurrency

    @property
    def load_unit(self) -> str:
        """What the load is counted in: `users`, `req/s` or `batch`."""
        return "req/s" if self.open_loop else "batch" if self.batch else "users"

    @property
    def load_text(self) -> str:
        """The load in words, such as `4 users`, `2.5 req/s` or `batch 8`."""
        if self.open_loop:
            text = f"{self.rate:g} req/s"
        elif self.batch:
            text = f"batch {self.batch}"
        else:
            text = f"{self.concurrency} user{'' if self.concurrency == 1 else 's'}"
        return ", ".join([text, *self.extra_texts])

    @property
    def extra_texts(self) -> list[str]:
        """What it has beyond lengths and load, in words."""
        texts = [f"{self.shared_percent}% shared prefix"] if self.shared_percent else []
        texts += [extra.text for extra in (self.step, self.conversation, self.prefixes) if extra is not None]
        return [*texts, f"trace {self.trace}"] if self.trace else texts

    @property
    def shared_tokens(self) -> int:
        """Tokens that open every prompt alike, by `shared_percent`."""
        return self.prompt_tokens * self.shared_percent // 100

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its output. A trace's are in `TraceFacts.longest`."""
        prompt = self.prompt_tokens
        if self.conversation is not None:
            prompt = self.conversation.longest_prompt(prompt, self.output_tokens)
        return prompt + self.output_tokens

    @property
    def id(self) -> str:
        """Stable name, such as `p0512-o0128-c004`, `p0512-o0128-b016` or `p0512-o0128-r2.5-s50`.

        Larger numbers are written whole, so sort cells, not ids.
        """
        load = f"b{self.batch:03d}" if self.batch else f"c{self.concurrency:03d}"
        if self.open_loop:
            load = f"r{repr(self.rate).removesuffix('.0')}"
        return f"p{self.prompt_tokens:04d}-o{self.output_tokens:04d}-{load}{self.extras}"

    @property
    def extras(self) -> str:
        """What stands in the id behind lengths and load, such as `-s50`; empty for a plain cell."""
        parts = [f"s{self.shared_percent}"] if self.shared_percent else []
        parts += [extra.id for extra in (self.step, self.conversation, self.prefixes) if extra is not None]
        parts += [f"t{self.trace}"] if self.trace else []
        return "".join(f"-{part}" for part in parts)

    @property
    def shape(self) -> Cell:
        """The cell without its load."""
        return dataclasses.replace(self, concurrency=0, rate=0.0, batch=0)

    def whole(self, requests: int) -> int:
        """As many requests, or the next number that is whole batches."""
        return requests + -requests % (self.batch or 1)

    def __lt__(self, other: Cell) -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int, int, float, str]:
        return (self.prompt_tokens, self.output_tokens, self.shared_percent, self.streams, self.rate, self.id)

    @classmethod
    def parse(cls, cell_id: str) -> Cell:
        """Read a cell back from its id. Raises ValueError when it is not one."""
        pattern = r"p([0-9]{4,9})-o([0-9]{4,9})-(?:c([0-9]{3,9})|b([0-9]{3,9})|r([0-9.]+(?:e[+-]?[0-9]+)?))(.*)"
        found = re.fullmatch(pattern, cell_id)
        if found is None:
            raise ValueError(f"{cell_id!r} is not a cell id, such as p0512-o0128-c004")
        prompt, output, users, batch, rate, rest = found.groups()
        try:
            load = (int(users or 0), float(rate or 0), int(batch or 0))
            cell = cls(int(prompt), int(output), *load, **_extras(rest))
        except ValueError:
            cell = None
        if cell is None or cell.id != cell_id:
            raise ValueError(f"{cell_id!r} is not a cell id, such as p0512-o0128-r2.5")
        return cell


def read_cell(cell_id: str) -> Cell | None:
    """A cell by its id; None when the id is not one of ours."""
    try:
        return Cell.parse(cell_id)
    except ValueError:
        return None


def in_order(cell_ids: Iterable[str]) -> list[str]:
    """Ids of cells as their cells sort; what is no cell's comes last."""
    known = {cell_id: read_cell(cell_id) for cell_id in cell_ids}
    cells = sorted(cell for cell in known.values() if cell is not None)
    return [cell.id for cell in cells] + sorted(cell_id for cell_id, cell in known.items() if cell is None)


def _extras(rest: str) -> dict[str, Any]:
    """What stands behind the load in an id. What is out of order does not give the same id again."""
    found: dict[str, Any] = {}
    for part in rest.split("-")[1:]:
        if re.fullmatch(r"s[1-9][0-9]?", part):
            found["shared_percent"] = int(part[1:])
        elif re.fullmatch(r"t[0-9a-f]{8}", part):
            found["trace"] = part[1:]
        elif (step := parse_step(part)) is not None:
            found["step"] = step
        elif (conversation := parse_conversation(part)) is not None:
            found["conversation"] = conversation
        elif (prefixes := parse_prefixes(part)) is not None:
            found["prefixes"] = prefixes
        else:
            raise ValueError(part)
    return found
