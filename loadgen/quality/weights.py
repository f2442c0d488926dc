"""In what precision an engine holds its weights: as it says itself, as it was launched, or as the model is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loadgen.endpoints.endpoint import Endpoint
from loadgen.message import say
from loadgen.quality.result import Weights

FEW_BITS = 12.0
"""Fewer bits a weight than this are quantised; 16-bit weights with some of 32 are more."""
NAMES = re.compile(
    r"(?<![A-Za-z0-9])(I?Q[1-8](_[A-Z0-9]+)*|AWQ|GPTQ|INT[48]|FP8|NF4|MXFP4|NVFP4|W[48]A(?:4|8|16)|[48]-?BIT|BNB)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PLAIN = re.compile(r"(?<![A-Za-z0-9])(BF16|F16|F32|FP16|BFLOAT16|FLOAT16)(?![A-Za-z0-9])", re.IGNORECASE)


def weights_of(endpoint: Endpoint, launch: Mapping[str, Any] | None = None) -> Weights:
    """What can be told of an engine's weights.

    Args:
        endpoint: asked for its model list once more.
        launch: how the engine was started, where this is known (`EngineHost.describe`).
    """
    entry = _entry(endpoint)
    told = endpoint.engine.weights(entry)
    if told is not None:
        kind, bits = told
        words = say("{kind}, {bits} bits a weight", kind=kind, bits=f"{bits:.1f}")
        return Weights(words=words, bits=bits, quantised=bits < FEW_BITS)
    launch = launch or {}
    argv = launch.get("argv") or []
    at = next((i for i, word in enumerate(argv) if word in ("--quantization", "-q")), None)
    names = [argv[at + 1]] if at is not None and at + 1 < len(argv) else []
    words_told = launch.get("weights")
    if isinstance(words_told, str) and "dequantised" in words_told:
        return Weights(words=words_told, quantised=False)
    names += [str(name) for name in (words_told, entry.get("id"), entry.get("root"), endpoint.model) if name]
    for name in names:
        if found := NAMES.search(name):
            return Weights(words=say("{kind}, as it is called", kind=found[1]), quantised=True)
    for name in names:
        if found := PLAIN.search(name):
            return Weights(words=say("{kind}, as it is called", kind=found[1]), quantised=False)
    return Weights(words=say("not told"))


def _entry(endpoint: Endpoint) -> dict[str, Any]:
    reply = endpoint.client().try_call("GET", endpoint.engine.models_path)
    data = reply.get("data") if isinstance(reply, dict) else None
    entries = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    return next((each for each in entries if each.get("id") == endpoint.model), entries[0] if entries else {})
