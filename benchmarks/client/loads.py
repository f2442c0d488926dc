"""The loads: so many streams, each sending its next request when the last one has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROMPT_TOKENS = 32
BLAST = "blast"


@dataclass(frozen=True)
class Load:
    """One load and the server's timing under it. Times in ms."""

    name: str
    """The number of streams, or `blast`."""
    streams: int
    rounds: int
    """Requests of each stream; the first one is not judged. In blast each peer has its own number."""
    tokens: int = 128
    ttft_ms: float = 50.0
    tpot_ms: float = 10.0

    @property
    def blast(self) -> bool:
        """Whether the server writes a whole answer at once, so that only the client's speed counts."""
        return self.tpot_ms == 0

    @property
    def server_options(self) -> list[str]:
        """Options of the simulator."""
        timing = ["--ttft-ms", str(self.ttft_ms), "--tpot-ms", str(self.tpot_ms)]
        # A whole answer in one write: then the client is what is waited for, not the server.
        return timing + ["--set", "coalesce=1024"] * self.blast

    @property
    def seconds(self) -> float:
        """What the requests take a client that keeps up."""
        return self.rounds * (self.ttft_ms + (self.tokens - 1) * self.tpot_ms) / 1e3


def paced(streams: int, *, quick: bool) -> Load:
    """TTFT 50 ms, TPOT 10 ms, 128 tokens."""
    return Load(str(streams), streams, 3 if quick else 5)


def blast(rounds: int) -> Load:
    """Everything at once: 16 streams of 1,024 tokens."""
    return Load(BLAST, 16, rounds, tokens=1024, ttft_ms=0.0, tpot_ms=0.0)


FULL: Sequence[str] = ("1", "16", "64", "256", BLAST)
QUICK: Sequence[str] = ("64", BLAST)
TINY: Sequence[Load] = (Load("4", 4, 3, tokens=16), Load(BLAST, 4, 3, tokens=64, ttft_ms=0.0, tpot_ms=0.0))
"""Of `--self-only`: enough to see that every part works."""
