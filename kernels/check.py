"""Checks every kernel on the card against a reference of higher precision, beside the libraries on the same inputs.

    python -m kernels.check --out correctness.json

The reference is fp64 on the CPU for small shapes and fp32 on the card for large ones. Outputs start as NaN, and so do
guard rows behind them: every element must be written, and none outside.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kernels import build
from kernels.attention import attention
from kernels.libraries import Attend, libraries, versions
from kernels.steps import STEPS, Step

try:
    import torch
except ModuleNotFoundError:  # main says so
    torch = None

# Largest relative error (L2) let through: a 16-bit output alone has 2^-11 / sqrt(3) (fp16), 2^-8 / sqrt(3) (bf16) at
# worst, and P is rounded to 16 bits before PV in every tensor-core kernel, the libraries' too.
ALLOWED = {"float16": 1e-3, "bfloat16": 8e-3}
GUARD_ROWS = 64


@dataclass(frozen=True)
class Case:
    """One set of inputs. `kind` says what is peculiar about it; `lengths` are a packed batch's, else all alike."""

    kind: str
    dtype: str
    dim: int
    causal: bool
    batch: int
    seqlen: int
    heads: int
    kv_heads: int
    seqlen_k: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def keys(self) -> int:
        """Keys a sequence has."""
        return self.seqlen_k or self.seqlen


def cases(random_cases: int, large: bool) -> Iterator[Case]:
    """Fixed shapes at the edges of the tiles, then shapes drawn by a fixed seed, then large ones."""
    for dtype in ALLOWED:
        for dim in (64, 128):
            for causal in (False, True):
                yield Case("whole tiles", dtype, dim, causal, 2, 256, 4, 4)
                yield Case("one row", dtype, dim, causal, 1, 1, 2, 2)
                yield Case("tail", dtype, dim, causal, 2, 193, 3, 3)
                yield Case("gqa", dtype, dim, causal, 2, 300, 8, 2)
                yield Case("large logits", dtype, dim, causal, 1, 320, 4, 4)
                yield Case("equal rows", dtype, dim, causal, 1, 257, 2, 2)
                yield Case("fewer queries", dtype, dim, causal, 1, 100, 4, 2, seqlen_k=417)
                yield Case("fewer keys", dtype, dim, causal, 1, 300, 2, 2, seqlen_k=70)
                yield Case("packed", dtype, dim, causal, 5, 400, 4, 2, lengths=(1, 400, 129, 64, 255))
                yield Case("long tail", dtype, dim, causal, 1, 2500, 2, 1)  # step 5 takes taller tiles from 2k on
                yield Case("long, fewer queries", dtype, dim, causal, 1, 2100, 2, 2, seqlen_k=2690)
                yield Case("long packed", dtype, dim, causal, 4, 2305, 2, 1, lengths=(700, 1, 2305, 191))
    draw = random.Random(19)
    for _ in range(random_cases):
        kv_heads = draw.choice((1, 2, 3))
        lengths = tuple(draw.randint(1, 700) for _ in range(draw.randint(1, 5)))
        packed = draw.random() < 0.3
        yield Case(
            "random packed" if packed else "random",
            draw.choice(tuple(ALLOWED)),
            draw.choice((64, 128)),
            draw.random() < 0.5,
            len(lengths),
            max(lengths),
            kv_heads * draw.choice((1, 2, 4)),
            kv_heads,
            lengths=lengths if packed else (),
        )
    for dtype in ALLOWED if large else ():
        for dim in (64, 128):
            for causal in (False, True):
                yield Case("large", dtype, dim, causal, 4, 4096, 2048 // dim, 2048 // dim)
                yield Case("large tail", dtype, dim, causal, 1, 8191, 8, 2)


def few(long: bool) -> Iterator[Case]:
    """Shapes with tails, masks, groups and packing, small enough for a checker that slows everything down."""
    for dim in (64, 128):
        for causal in (False, True):
            yield Case("gqa", "float16", dim, causal, 1, 300, 4, 2)
            yield Case("packed", "bfloat16", dim, causal, 3, 200, 2, 1, lengths=(1, 200, 129))
            if long and dim == 128:
                yield Case("long packed", "bfloat16", dim, causal, 2, 2100, 2, 1, lengths=(100, 2100))


def inputs(case: Case, device: str = "cuda") -> tuple[Any, Any, Any]:
    """Fresh q, k, v of the case, (batch, seq, heads, dim) or packed, by a seed of its own."""
    generator = torch.Generator(device="cpu").manual_seed(zlib.crc32(repr(case).encode()))
    dtype = getattr(torch, case.dtype)

    def tensor(tokens: int, heads: int) -> Any:
        lead = (sum(case.lengths),) if case.lengths else (case.batch, tokens)
        return torch.randn(*lead, heads, case.dim, generator=generator).to(dtype)

    q, k, v = tensor(case.seqlen, case.heads), tensor(case.keys, case.kv_heads), tensor(case.keys, case.kv_heads)
    if case.kind == "large logits":  # scores of some thousand: exp overflows unless the maximum is taken off
        q, k = q * 40, k * 40
    if case.kind == "equal rows":  # every key alike: the output is the mean of the values seen
        q, k = q[:, :1].expand_as(q).contiguous(), k[:, :1].expand_as(k).contiguous()
    return q.to(device), k.to(device), v.to(device)


def exact(q: Any, k: Any, v: Any, causal: bool) -> Any:
    """Attention of one batch (batch, seq, heads, dim) in fp64 on the CPU, or in fp32 on the card when it is large."""
    small = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1] < 2**24
    kind = {"device": "cpu", "dtype": torch.float64} if small else {"dtype": torch.float32}
    group = q.shape[2] // k.shape[2]
    out = torch.empty(q.shape, **({"device": q.device} | kind))
    offset = k.shape[1] - q.shape[1]
    for b in range(q.shape[0]):  # one sequence at a time: the scores of a large one fill gigabytes
        for h in range(q.shape[2]):
            s = q[b, :, h].to(**kind) @ k[b, :, h // group].to(**kind).T / math.sqrt(q.shape[3])
            if causal:
                seen = torch.ones(s.shape, dtype=torch.bool, device=s.device).tril(offset)
                s = s.masked_fill(~seen, -math.inf)
            p = torch.softmax(s, dim=-1).nan_to_num(0)  # a row that sees no key is zeros
            out[b, :, h] = p @ v[b, :, h // group].to(**kind)
    return out


def over_sequences(case: Case, function: Any, *tensors: Any) -> Any:
    """`function` on each sequence of a packed batch, or on the whole when it is not packed."""
    if not case.lengths:
        return function(*tensors)
    parts = [function(*(x[None] for x in part)) for part in zip(*(x.split(case.lengths) for x in tensors), strict=True)]
    return torch.cat([part[0] for part in parts])


def run_kernel(case: Case, step: Step, q: Any, k: Any, v: Any) -> Any:
    """The kernel's output, from NaN; RuntimeError when it wrote behind the end."""
    guard = GUARD_ROWS * case.heads * case.dim
    buffer = torch.full((q.numel() + guard,), math.nan, dtype=q.dtype, device=q.device)
    packed = {}
    if case.lengths:
        ends = torch.tensor((0, *case.lengths)).cumsum(0).to(torch.int32).to(q.device)
        packed = {"cu_seqlens": ends, "max_seqlen": max(case.lengths)}
    out = attention(q, k, v, causal=case.causal, kernel=step.name, out=buffer[: q.numel()].view(q.shape), **packed)
    torch.cuda.synchronize()
    if not buffer[q.numel() :].isnan().all():
        raise RuntimeError(f"{step.name} wrote behind the end of its output: {case}")
    return out


def errors(out: Any, reference: Any) -> tuple[float, float]:
    """Largest absolute error, and the relative error in the L2 norm; NaN never passes."""
    difference = out.to(reference) - reference
    worst, relative = difference.abs().max().item(), (difference.norm() / reference.norm()).item()
    return float(f"{worst:.3g}"), float(f"{relative:.3g}")


def check_case(case: Case, steps: list[Step], others: dict[str, Attend]) -> Iterator[dict[str, Any]]:
    """One row a kernel and a library: what was tried and how far off it was."""
    q, k, v = inputs(case)
    reference = over_sequences(case, partial(exact, causal=case.causal), q, k, v)
    library: dict[str, tuple[float, float]] = {}
    aligned = not case.causal or case.keys == case.seqlen  # elsewhere the libraries align the mask to the start
    for name, attend in others.items() if aligned else ():
        try:
            out = over_sequences(case, lambda *x, attend=attend: attend(*x, case.causal), q, k, v)
            library[name] = errors(out, reference)
        except RuntimeError as problem:  # a library that does not take this shape or type
            print(f"  {name} left out ({case.kind}): {str(problem).splitlines()[0][:100]}", file=sys.stderr)
    shape = {key: value for key, value in asdict(case).items() if value is False or value not in (0, ())}
    for step in steps:
        if not case.lengths or step.varlen:
            worst, relative = errors(run_kernel(case, step, q, k, v), reference)
            beside = library["flash"][1] if "flash" in library else None
            row = {"kernel": step.name, **shape, "max_abs": worst, "rel_l2": relative, "library_rel_l2": beside}
            yield row | {"ok": relative <= ALLOWED[case.dtype]}
    for name, (worst, relative) in library.items():
        yield {"kernel": name, **shape, "max_abs": worst, "rel_l2": relative, "library_rel_l2": None, "ok": True}


def main() -> int:
    """Checks, prints the worst error of each kernel, writes the rows; 1 when a kernel was off."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, help="write the rows here (JSON)")
    parser.add_argument("--random", type=int, default=40, help="random shapes to draw")
    parser.add_argument("--kernels", nargs="+", choices=[s.name for s in STEPS], default=[s.name for s in STEPS])
    parser.add_argument("--small", action="store_true", help="leave the large shapes out")
    parser.add_argument("--few", action="store_true", help="a few small shapes, no library: for compute-sanitizer")
    options = parser.parse_args()
    if reason := build.why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    steps = [step for step in STEPS if step.name in options.kernels]
    others = {} if options.few else libraries()
    rows: list[dict[str, Any]] = []
    for case in few(options.kernels == ["hopper"]) if options.few else cases(options.random, not options.small):
        rows.extend(check_case(case, steps, others))
    for name in [step.name for step in steps] + list(others):
        mine = [row for row in rows if row["kernel"] == name]
        bad = [row for row in mine if not row["ok"]]
        worst = {d: max((r["rel_l2"] for r in mine if r["dtype"] == d), default=math.nan) for d in ALLOWED}
        print(
            f"{name:15} {len(mine):4} cases, worst relative error "
            + ", ".join(f"{d} {w:.2e}" for d, w in worst.items())
        )
        for row in bad[:6]:
            print(f"  off: {row}")
    if options.out:
        card = torch.cuda.get_device_name()
        lines = ",\n".join(json.dumps(row) for row in rows)
        head = json.dumps({"card": card, "versions": versions()})[:-1]
        options.out.write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
