"""The front: `attention(q, k, v)` on CUDA tensors, through any step of the ladder."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from kernels import build
from kernels.steps import step as step_named

if TYPE_CHECKING:
    Tensor = Any


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    kernel: str = "hopper",
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_k: int | None = None,
    scale: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """softmax(scale q k^T) v with one of the kernels of `kernels.steps`.

    q is (batch, seq_q, heads, dim), k and v are (batch, seq_k, kv_heads, dim): fp16 or bf16, contiguous, on one card,
    dim 64 or 128, heads a multiple of kv_heads. With `cu_seqlens` (batch + 1 offsets, int32, on the card) they are
    (total, heads, dim), one sequence after another, and `max_seqlen` is the longest; `cu_seqlens_k` and
    `max_seqlen_k` say the same of k and v where it differs. ("hopper" reads whole tiles, so the first rows of the next
    sequence too, and weighs them with zero: they must be finite.) `scale` is 1 / sqrt(dim) when not given. A causal
    mask is aligned to the end: query i of n sees keys up to i + seq_k - n; a row that sees none comes back as zeros.

    ValueError or TypeError for arguments that do not fit, build.BuildError where nvcc is missing, RuntimeError where
    there is no Hopper card or the kernel failed to start.
    """
    import torch

    step = step_named(kernel)
    packed = cu_seqlens is not None
    _check(torch, q, k, v, packed)
    if packed and not step.varlen:
        raise ValueError(f"kernel {kernel!r} takes no cu_seqlens; 'pipelined' and 'hopper' do")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be above 0, is {scale}")
    _check_card(torch, q, k, v)

    heads, dim = q.shape[-2:]
    if packed:
        cu_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
        batch, seq_q = _offsets(torch, "cu_seqlens", cu_seqlens, max_seqlen)
        batch_k, seq_k = _offsets(torch, "cu_seqlens_k", cu_k, max_seqlen if cu_seqlens_k is None else max_seqlen_k)
        if batch_k != batch:
            raise ValueError(f"cu_seqlens names {batch} sequences, cu_seqlens_k {batch_k}")
    else:
        cu_k = None
        batch, seq_q, seq_k = q.shape[0], q.shape[1], k.shape[1]
    out = torch.empty_like(q) if out is None else out
    if out.shape != q.shape or out.dtype != q.dtype or not out.is_contiguous():
        raise ValueError("out must be contiguous, of the shape and type of q")
    if out.numel() == 0:
        return out
    if seq_k == 0:
        return out.zero_()

    scratch_floats = batch * heads * seq_q * seq_k if step.number == 0 else 1
    scratch = torch.empty(scratch_floats, dtype=torch.float32, device=q.device)
    arguments = build.Arguments(
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        o=out.data_ptr(),
        scratch=scratch.data_ptr(),
        cu_q=cu_seqlens.data_ptr() if cu_seqlens is not None else None,
        cu_k=cu_k.data_ptr() if cu_k is not None else None,
        stream=torch.cuda.current_stream(q.device).cuda_stream,
        batch=batch,
        heads=heads,
        kv_heads=k.shape[-2],
        seq_q=seq_q,
        seq_k=seq_k,
        dim=dim,
        total_q=q.shape[0] if packed else batch * seq_q,
        total_k=k.shape[0] if packed else batch * seq_k,
        causal=int(causal),
        is_bf16=int(q.dtype == torch.bfloat16),
        scale=1 / math.sqrt(dim) if scale is None else scale,
    )
    library = build.load()
    with torch.cuda.device(q.device):
        code = getattr(library, f"attention_step{step.number}")(ctypes.byref(arguments))
    if code:
        raise RuntimeError(f"kernel {kernel!r} did not start: {library.attention_error(code).decode()}")
    return out


def _check(torch: Any, q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
    """TypeError or ValueError unless the three tensors fit each other."""
    if q.dtype not in (torch.float16, torch.bfloat16) or k.dtype != q.dtype or v.dtype != q.dtype:
        raise TypeError(f"q, k and v must all be float16 or all bfloat16, are {q.dtype}, {k.dtype}, {v.dtype}")
    rank = 3 if packed else 4
    layout = "(total, heads, dim)" if packed else "(batch, seq, heads, dim)"
    if q.dim() != rank or k.dim() != rank or k.shape != v.shape:
        raise ValueError(f"q, k and v must be {layout}, are {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    if q.shape[-1] not in (64, 128) or k.shape[-1] != q.shape[-1]:
        raise ValueError(f"the head dimension must be 64 or 128 in all three, is {q.shape[-1]} and {k.shape[-1]}")
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        raise ValueError(f"{q.shape[-2]} query heads are no multiple of {k.shape[-2]} key heads")
    if not packed and q.shape[0] != k.shape[0]:
        raise ValueError(f"q holds {q.shape[0]} sequences, k holds {k.shape[0]}")
    if q.device != k.device or q.device != v.device:
        raise ValueError("q, k and v must lie on one card")


def _check_card(torch: Any, *tensors: Tensor) -> None:
    """RuntimeError without a Hopper card, ValueError unless the tensors lie on it, contiguous."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA card: these kernels run on one (compute capability 9.0)")
    for name, x in zip("qkv", tensors, strict=True):
        if not x.is_cuda or not x.is_contiguous():
            raise ValueError(f"{name} must be a contiguous tensor on the card")
    if torch.cuda.get_device_capability(tensors[0].device) != (9, 0):
        name = torch.cuda.get_device_name(tensors[0].device)
        raise RuntimeError(f"{name} is no Hopper card (compute capability 9.0)")


def _offsets(torch: Any, name: str, cu: Tensor, longest: int | None) -> tuple[int, int]:
    """Sequences that `cu` names and the longest of them (read off the card unless given)."""
    if cu.dtype != torch.int32 or cu.dim() != 1 or cu.numel() < 2 or not cu.is_cuda or not cu.is_contiguous():
        raise ValueError(f"{name} must be contiguous int32 offsets on the card, one more than there are sequences")
    return cu.numel() - 1, int((cu[1:] - cu[:-1]).max()) if longest is None else longest
