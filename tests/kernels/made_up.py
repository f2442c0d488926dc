"""Measurements that nobody took, with figures that can be worked out by hand."""

from kernels.measured import Bench, Case, Counters, Measured, Timing

KERNELS = ("textbook", "online-softmax", "tensor-cores", "swizzle", "pipelined", "hopper", "flash", "cudnn", "fa3")
SPEEDS = dict(zip(KERNELS, (8, 12, 90, 240, 300, 540, 300, 500, 600), strict=True))
LENGTHS = (512, 4096, 16384)
DRIFT = (0, 6, -6)
"""TFLOP/s that the hopper kernel is off its figure in each run."""


def timing(run, kernel, length, causal, dtype="float16", dim=128):
    speed = SPEEDS[kernel] + (DRIFT[run - 1] if kernel == "hopper" else 0)
    if causal:
        speed /= 2
    batch = 16384 // length
    return Timing(run, kernel, dtype, dim, causal, length, batch, 2048 // dim, 1.0, speed, 1980)


TIMINGS = tuple(
    timing(run, kernel, length, causal, dtype)
    for run in (1, 2, 3)
    for kernel in KERNELS
    for length in LENGTHS
    for causal in (False, True)
    for dtype in ("float16", "bfloat16")
)
KINDS = ("whole tiles", "one row", "tail", "gqa", "large logits", "equal rows", "fewer queries", "fewer keys")
KINDS += ("packed", "random", "random packed", "large", "large tail", "long tail", "long, fewer queries", "long packed")
CASES = tuple(
    Case(kernel, dtype, 128, False, 2, 256 + place, 4, 2, kind, 1e-3, (place + 1) * 1e-5, 3e-5)
    for kernel in ("swizzle", "hopper")
    for place, kind in enumerate(KINDS)
    for dtype in ("float16", "bfloat16")
)
COUNTERS = tuple(
    Counters(
        kernel,
        length,
        False,
        {
            "dram_read_bytes": float((1 << 20) * 900 * (length if kernel == "textbook" else 1)),
            "dram_write_bytes": float((1 << 20) * 100 * (length if kernel == "textbook" else 1)),
            "tensor_pipe_pct": 60.04,
            "issue_slots_pct": 45.0,
            "occupancy_pct": 12.5,
            "ms": 1.0,
            "registers": 168,
            "shared_load_wavefronts": 2345678.0,
            "shared_load_bank_conflicts": 0.0 if kernel == "swizzle" else 1234567.0,
            "shared_store_wavefronts": 5.0,
            "shared_store_bank_conflicts": 0.0,
            "stalls": {"long_scoreboard": 2.0, "barrier": 3.0, "wait": 1.0, "gmma": 0.5},
        },
    )
    for kernel in ("textbook", "tensor-cores", "swizzle", "hopper")
    for length in LENGTHS
)
CLOCKS = {"max_sm": "1980 MHz", "max_memory": "1 MHz", "power_limit": "700 W", "clocks.sm": 1980.0}
MEASURED = Measured(
    Bench("NVIDIA H200", "570.1", {"torch": "2.11.0"}, CLOCKS, TIMINGS),
    CASES,
    COUNTERS,
    (Bench("NVIDIA H100", "570.2", {"torch": "2.11.0"}, CLOCKS, tuple(t for t in TIMINGS if t.run == 1)),),
)
