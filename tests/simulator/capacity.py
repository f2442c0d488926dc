"""What the batching model must give, worked out on paper. Tests hold the simulator to it."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.batching import step_ns
from simulator.config import BatchingTiming


@dataclass(frozen=True, slots=True)
class Capacity:
    """Steady state of a saturated closed loop of equal requests (more requests than slots, so a slot never idles)."""

    batch: int
    """Sequences that run at once."""
    cycle_s: float
    """From a request's first step to its last event."""
    requests_per_s: float
    output_tokens_per_s: float
    tpot_ms: float
    """Mean time between two tokens of one request."""


def request_work_ns(cfg: BatchingTiming, prompt: int, output: int) -> float:
    """Return what one request adds to the steps it is in, their base left out.

    Its prompt is prefilled once; then each of `output` - 1 decode steps reads the KV of all tokens before.
    """
    decodes = output - 1
    context = sum(prompt + j for j in range(decodes))
    return (
        cfg.prefill_us_per_token * prompt + cfg.decode_us_per_sequence * decodes + cfg.kv_us_per_token * context
    ) * 1000


def slots(cfg: BatchingTiming, prompt: int, output: int) -> int:
    """Return how many such requests run at once, by `max_num_seqs` and by KV blocks.

    Where KV blocks decide, exact only if the prompt takes all the blocks that the request will ever need; otherwise
    more are admitted than can end, and the last of them are preempted.
    """
    blocks = -(-(prompt + output - 1) // cfg.block_tokens)
    return max(1, min(cfg.max_num_seqs, cfg.kv_blocks // blocks))


def capacity(cfg: BatchingTiming, prompt: int, output: int) -> Capacity:
    """Return the saturated throughput for requests of `prompt` and `output` tokens.

    In steady state every running sequence advances by one token in each step, so a request is in exactly `output`
    steps: cycle = output x base + batch x work. Exact while every prompt fits into one step's token budget, the KV
    budget never preempts, the emit gap is shorter than a step's share, and drift is 0.
    """
    batch = slots(cfg, prompt, output)
    cycle_ns = output * cfg.base_ms * 1e6 + batch * request_work_ns(cfg, prompt, output)
    cycle_s = cycle_ns / 1e9
    return Capacity(
        batch=batch,
        cycle_s=cycle_s,
        requests_per_s=batch / cycle_s,
        output_tokens_per_s=batch * output / cycle_s,
        tpot_ms=cycle_s * 1000 / output,
    )


def service_s(cfg: BatchingTiming, prompt: int, output: int) -> float:
    """Return how long one request takes alone, in seconds, its first step's start to its last token."""
    total = step_ns(cfg, prompt, 0, 0)
    total += sum(step_ns(cfg, 0, 1, prompt + j) for j in range(output - 1))
    return total / 1e9


def md1_wait_s(cfg: BatchingTiming, prompt: int, output: int, rate: float) -> float:
    """Return the mean wait in the queue with one slot and Poisson arrivals: M/D/1, rho x D / (2 (1 - rho)).

    Pollaczek-Khinchine for a constant service time D. Raises ValueError when the rate is beyond capacity.
    """
    service = service_s(cfg, prompt, output)
    rho = rate * service
    if rho >= 1:
        raise ValueError(f"rate {rate} is beyond the capacity of {1 / service:.3f} requests/s")
    return rho * service / (2 * (1 - rho))
