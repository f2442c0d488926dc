"""Spoils good inputs: their bytes, or the values in them. The same seed gives the same inputs."""

from __future__ import annotations

import copy
import random
from typing import Any

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 1.5, float("nan"), float("inf"), 1e308),
    *(
        "",
        "x",
        "../../x",
        "/etc/passwd",
        "\x1b[2J",
        "a" * 3000,
        b"\xff\xfe",
        [],
        [[]],
        [None] * 50,
        {},
        {"a": 1},
        {1: {}},
    ),
)


def spoil_bytes(source: random.Random, data: bytes) -> bytes:
    """Flip, cut out, repeat or put in some bytes; now and then nothing but noise."""
    if source.random() < 0.05:
        return source.randbytes(source.randrange(64))
    spoilt = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(spoilt) + 1)
        match source.randrange(4):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << source.randrange(8)
            case 1:
                del spoilt[at : at + source.randint(1, 16)]
            case 2:
                spoilt[at:at] = spoilt[at : at + source.randint(1, 16)]
            case _:
                spoilt[at:at] = source.randbytes(source.randint(1, 8))
    return bytes(spoilt)


def spoil_values(source: random.Random, data: Any) -> Any:
    """Put something else in the place of one or two values, or leave one out."""
    spoilt = [copy.deepcopy(data)]
    for _ in range(source.randint(1, 2)):
        at: Any = spoilt
        key: Any = 0
        while isinstance(at[key], dict | list) and at[key] and source.random() < 0.85:
            at = at[key]
            key = source.choice(list(at)) if isinstance(at, dict) else source.randrange(len(at))
        if isinstance(at, dict) and source.random() < 0.2:
            del at[key]
        else:
            at[key] = copy.deepcopy(source.choice(WRONG))
    return spoilt[0]
