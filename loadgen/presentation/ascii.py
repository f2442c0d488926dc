"""Our signs on a terminal that has ASCII only: each has a letter of its own, so that verdicts stay apart."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

ERRORS = "bakeoff-ascii"
"""Name of the handler that `tell_apart` gives to a stream."""
SIGNS = dict(zip(map(ord, "●■▲◆▼✚✓✗→←×÷−–—…“”≠≥≤·"), 'o#^*vPYN><x/---~""!><.', strict=True))
"""Each is as wide as its sign."""


def in_ascii(text: str) -> str:
    """Text with ASCII for our own signs; what else there is becomes `?`."""
    return text.replace(" ±", "+-").translate(SIGNS).encode("ascii", "replace").decode()


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What a codec writes for characters that it has not."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].replace("±", "+-").translate(SIGNS)
    return text.encode("ascii", "replace").decode(), error.end


def tell_apart(stream: TextIO) -> None:
    """Have a stream write our signs in ASCII where its encoding has not got them, and `?` for all else."""
    codecs.register_error(ERRORS, _replaced)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ERRORS)
