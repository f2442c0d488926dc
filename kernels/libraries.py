"""The libraries' own forward kernels behind one call, to time and to check beside ours."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

Attend = Callable[[Any, Any, Any, bool], Any]  # (q, k, v, causal) -> out, all (batch, seq, heads, dim)


def _scaled_dot_product(backend: str) -> Attend:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    chosen = getattr(SDPBackend, backend)

    def attend(q: Any, k: Any, v: Any, causal: bool) -> Any:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(chosen):
            out = scaled_dot_product_attention(*heads_first, is_causal=causal, enable_gqa=q.shape[2] != k.shape[2])
        return out.transpose(1, 2)

    return attend


def _flash_attention_3() -> tuple[Attend, str] | None:
    for module, packages in (
        ("flash_attn_interface", ("flash-attn-3", "tokenspeed-fa3")),
        ("fa3_fwd_interface", ("fa3-fwd",)),
    ):
        try:
            function = import_module(module).flash_attn_func
        except (ImportError, OSError):
            continue

        def attend(q: Any, k: Any, v: Any, causal: bool, function: Any = function) -> Any:
            out = function(q, k, v, causal=causal)
            return out[0] if isinstance(out, tuple) else out

        return attend, _version(*packages, module)
    return None


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return packages[-1]


def libraries() -> dict[str, Attend]:
    """`flash` (PyTorch's FlashAttention-2), `cudnn`, and `fa3` (FlashAttention-3) where a wheel of it is installed."""
    found = {"flash": _scaled_dot_product("FLASH_ATTENTION"), "cudnn": _scaled_dot_product("CUDNN_ATTENTION")}
    fa3 = _flash_attention_3()
    if fa3:
        found["fa3"] = fa3[0]
    return found


def versions() -> dict[str, str]:
    """What the numbers were taken with: PyTorch, CUDA, cuDNN, FlashAttention-3."""
    import torch

    fa3 = _flash_attention_3()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": str(torch.backends.cudnn.version()),
        "fa3": fa3[1] if fa3 else "not installed",
    }
