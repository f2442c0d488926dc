"""Request records for tests: a short way to write one, and a hypothesis strategy for any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from loadgen.record import RequestRecord, int64s

MS = 1_000_000
INT64 = st.integers(0, 2**62)
INT32 = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def record(send=0, offsets=(), *, done=None, **fields) -> RequestRecord:
    """A record sent at `send` ns, with content events at these offsets in ns."""
    offsets = list(offsets)
    known: dict[str, Any] = {
        **dict.fromkeys(("run_id", "block", "engine", "model", "cell", "api", "worker"), "x"),
        **{"user": 0, "index": 0, "t_intended": send, "t_send": send, "wall_offset_ns": 0},
        **{"prompt_tokens_wanted": 4, "output_tokens_wanted": 2},
        **{"events": len(offsets), "event_offsets_ns": int64s(offsets), "t_done": send},
    }
    if offsets:
        known |= {"t_first": send + offsets[0], "t_last": send + offsets[-1], "t_done": send + offsets[-1]}
    if done is not None:
        known["t_done"] = done
    return RequestRecord(**{**known, **fields})


any_record = st.builds(
    RequestRecord,
    **dict.fromkeys(("run_id", "block", "engine", "model", "cell", "api", "worker"), TEXT),
    **dict.fromkeys(("user", "index", "prompt_tokens_wanted", "output_tokens_wanted", "events"), INT32),
    **dict.fromkeys(("t_intended", "t_send", "t_done", "wall_offset_ns", "connect_ns"), INT64),
    **dict.fromkeys(("t_first", "t_last"), st.none() | INT64),
    **dict.fromkeys(("prompt_tokens", "output_tokens", "http_status"), st.none() | INT32),
    token_source=st.sampled_from([None, "usage", "tokenizer"]),
    event_offsets_ns=st.lists(INT64, max_size=5).map(int64s),
    **dict.fromkeys(("finish_reason", "error", "error_detail", "text"), st.none() | TEXT),
)
