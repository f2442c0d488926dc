"""The ladder: one kernel a step, each differing from the one before in one idea."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CUDA_FOLDER = Path(__file__).parent / "cuda"


@dataclass(frozen=True)
class Step:
    """One kernel of the ladder: its number, the name the front takes, its file and its one idea."""

    number: int
    name: str
    file: str
    idea: str
    varlen: bool = False

    @property
    def path(self) -> Path:
        """The step's source."""
        return CUDA_FOLDER / self.file


STEPS = (
    Step(0, "textbook", "step0_textbook.cu", "S = QK^T to memory, softmax, PV: O(N^2) memory"),
    Step(1, "online-softmax", "step1_online_softmax.cu", "tiles with an online softmax: O(N) memory"),
    Step(2, "tensor-cores", "step2_tensor_cores.cu", "the same on tensor cores (mma.sync), shared memory as it comes"),
    Step(3, "swizzle", "step3_swizzle.cu", "XOR swizzle and ldmatrix.x4: no bank conflicts"),
    Step(4, "pipelined", "step4_pipelined.cu", "cp.async double buffering: loads behind the matrix work", varlen=True),
    Step(5, "hopper", "step5_hopper.cu", "wgmma, TMA and warp specialisation with ping-pong", varlen=True),
)
NAMES = tuple(step.name for step in STEPS)


def step(name: str) -> Step:
    """The step called `name`; ValueError with the names there are when there is none."""
    for candidate in STEPS:
        if candidate.name == name:
            return candidate
    raise ValueError(f"no kernel called {name!r}; there are {', '.join(NAMES)}")
