"""KsanaLLM's metrics: observations leave the loop through a pipe; a process of its own sums them up and pushes them.

Run by the simulator as `python -m simulator.pusher`; it ends when the pipe closes, after one last push.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from array import array
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from simulator.otlp import INDEX, Deltas

if TYPE_CHECKING:
    from simulator.batching import Step
    from simulator.truth import RequestTruth

PAIR_BYTES = 16
FLUSH_BYTES = 8192
(
    _LATENCY, _INPUT_LEN, _OUTPUT_LEN, _TTFT, _GAP, _OUT, _IN, _ALL, _REQUESTS, _FORWARDING, _RATE, _BATCH, _BATCH_0,
    _WAITING, _WAITING_0, _FIRST_STEP, _STEP_TOKENS, _QUEUE_TIME, _COMPUTED, _RECOMPUTED, _SWAPPED,
) = (INDEX[name] for name in (
    "total_latency_us", "input_token_len", "output_token_len", "time_to_first_token_us",
    "inter_token_interval_latency_us", "computed_output_token_num", "computed_input_token_num", "computed_token_num",
    "forward_req_total_num", "forwarding_time_us", "forwarding_time_rate", "batch_scheduler_batch_size",
    "batch_scheduler_batch_size_0", "batch_scheduler_waiting_size", "batch_scheduler_waiting_size_0",
    "first_step_time_us", "step_tokens_to_schedule", "batch_manager_schedule_us", "forwarding_token_num",
    "recompute_request_num", "swapout_request_num",
))  # fmt: skip


class KsanaFeed:
    """Observes streams and steps for the pusher. Costs an append an observation and a write to the pipe a few KB."""

    def __init__(self, url: str | None, interval_ms: int, avoid_cpu: int | None) -> None:
        """Start the pusher, away from `avoid_cpu`; without a URL nothing is pushed."""
        self._buffer = array("d")
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        if url is None:
            return
        read_end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        command = [sys.executable, "-m", "simulator.pusher", url, str(interval_ms), str(read_end)]
        command.append("" if avoid_cpu is None else str(avoid_cpu))
        self._process = subprocess.Popen(command, pass_fds=(read_end,), stdin=subprocess.DEVNULL)
        os.close(read_end)

    def _observe(self, *pairs: float) -> None:
        if self._process is None:
            return
        self._buffer.extend(pairs)
        if len(self._buffer) * 8 >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass what was observed on to the pusher; what a full pipe does not take waits."""
        while self._buffer and self._process is not None:
            try:
                # 4096 bytes or less are written whole or not at all (PIPE_BUF).
                written = os.write(self._pipe, self._buffer[: 4096 // 8])
            except BlockingIOError:
                return
            except OSError:
                self._buffer = array("d")
                return
            del self._buffer[: written // 8]

    def close(self) -> None:
        """Flush, and wait for the last push."""
        if self._process is None:
            return
        os.set_blocking(self._pipe, True)
        self.flush()
        os.close(self._pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
        self._process = None

    def first(self, ttft: int, prompt_tokens: int, tokens: int) -> None:
        """Observe a first content event."""
        self._observe(_TTFT, ttft / 1000, _IN, prompt_tokens, _OUT, tokens, _ALL, prompt_tokens + tokens, _REQUESTS, 1)

    def gap(self, ns: int, tokens: int, events: int) -> None:
        """Observe further content events."""
        self._observe(_GAP, ns / 1000, _OUT, tokens, _ALL, tokens)

    def finished(self, truth: RequestTruth, t_first: int, t_last: int, queued: int, reason: str) -> None:
        """Observe a request's end."""
        if reason != "abort":
            self._observe(
                _LATENCY, (t_last - truth.t_arrived) / 1000, _INPUT_LEN, truth.prompt_tokens,
                _OUTPUT_LEN, truth.tokens_written, _QUEUE_TIME, queued / 1000,
            )  # fmt: skip

    def step(self, step: Step, running: int, waiting: int, swapped: int) -> None:
        """Observe one step of the batching model."""
        length = (step.end - step.start) / 1000
        self._observe(
            _BATCH, running, _BATCH_0, running, _WAITING, waiting, _WAITING_0, waiting, _FIRST_STEP, length,
            _FORWARDING, length, _RATE, 99.0, _STEP_TOKENS, step.prefill_tokens + step.decode_sequences,
            _COMPUTED, step.prefill_tokens + step.decode_sequences,
        )  # fmt: skip
        if step.plan.preempted:
            self._observe(_SWAPPED if step.swapped_blocks else _RECOMPUTED, len(step.plan.preempted))


def _post(url: str, body: bytes) -> str | None:
    """Send one push; returns what went wrong."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=5)
    try:
        connection.request("POST", parts.path or "/", body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if status < 400 else f"status {status}"


def run(url: str, interval_s: float, pipe: int) -> None:
    """Sum up pairs (index, value) from the pipe and push them each interval until it closes."""
    deltas = Deltas("simulated", "c451219-simulated", time.time_ns())
    next_push = time.monotonic() + interval_s
    pending, told = b"", False
    is_open = True
    while is_open:
        ready, _, _ = select.select([pipe], [], [], max(0.0, next_push - time.monotonic()))
        if ready:
            data = os.read(pipe, 1 << 16)
            is_open = bool(data)
            pending += data
            whole = len(pending) // PAIR_BYTES * PAIR_BYTES
            pairs = array("d", pending[:whole])
            pending = pending[whole:]
            for index, value in zip(pairs[::2], pairs[1::2], strict=True):
                deltas.observe(int(index), value)
        if not is_open or time.monotonic() >= next_push:
            wrong = _post(url, json.dumps(deltas.push(time.time_ns()), separators=(",", ":")).encode())
            if wrong and not told:
                print(f"simulator: metrics push to {url} failed ({wrong}); goes on trying", file=sys.stderr, flush=True)
            told = bool(wrong)
            next_push = max(next_push + interval_s, time.monotonic())


def _main(url: str, interval_ms: str, pipe: str, avoid_cpu: str) -> None:
    # The simulator's own core and priority are for its schedule alone.
    cpus = set(range(os.cpu_count() or 1)) - ({int(avoid_cpu)} if avoid_cpu else set())
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)
    # It ends when its simulator does, after the last push, not before.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run(url, int(interval_ms) / 1000, int(pipe))


if __name__ == "__main__":
    _main(*sys.argv[1:5])
