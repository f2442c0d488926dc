"""Token counts as servers report them in `usage`."""

from __future__ import annotations

from typing import Any

MAX_TOKENS = 2**31 - 1
"""Records store counts in 32 bits; no real count comes near."""


def token_count(usage: Any, key: str) -> int | None:
    """Return `usage[key]` if it is a whole number that can be a count, else None. Never raises.

    A whole float counts (some servers write 5.0); a bool, a string, a negative or an absurd number does not.
    """
    value = usage.get(key) if isinstance(usage, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
        return None
    return value
