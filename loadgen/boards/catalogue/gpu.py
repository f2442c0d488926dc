"""The GPUs: whose memory, and whether the cards ran as fast as they can."""

from __future__ import annotations

import functools

from loadgen.boards.catalogue import reasons
from loadgen.boards.catalogue.queries import ENGINE, chosen
from loadgen.boards.model import Board, Panel, Query, Row

CARD = "GPU {{gpu}}"
_panel = functools.partial(Panel, no_data=reasons.NO_GPU)


def _by_card(series: str, labels: str = "", what: str = "") -> Query:
    return chosen(f"max by (gpu) (bakeoff_gpu_{series}{labels})", f"{CARD} {what}".strip())


MEMORY = Row(
    "Memory",
    (
        _panel(
            "GPU memory by engine",
            "What each engine's processes hold, all GPUs together; `other` is everybody else's. Good: only the engine "
            "whose turn it is holds any. Memory that another engine keeps is missing from this one's KV cache.",
            "bytes",
            (chosen('sum by (engine) (bakeoff_gpu_engine_memory_bytes{engine=~"$engine|other"})'),),
            no_data="No GPU is watched here, or its processes cannot be told apart (BAKEOFF_GPU_PROCESSES)",
            gray=("other",),
            width=12,
        ),
        _panel(
            "GPU memory by card",
            "Used, and the most used at once since the last look (sampled 20 times a second): a peak far above the "
            "line is what nearly ran out of memory. Good: room left below the top line.",
            "bytes",
            (
                _by_card("memory_used_bytes", what="used"),
                _by_card("memory_peak_bytes", what="peak"),
                _by_card("memory_reserved_bytes", what="reserved by the driver"),
                _by_card("memory_total_bytes", what="all"),
            ),
            width=12,
        ),
    ),
)

WORK = Row(
    "Work",
    (
        _panel(
            "GPU busy",
            "Share of the time in which any kernel ran. Good: near 100% in a block. Low means that the engine, its "
            "host or the load generator keeps the GPU waiting. Full does not mean efficient.",
            "percentunit",
            (_by_card("utilization_ratio"),),
            maximum=1,
        ),
        _panel(
            "Memory bandwidth busy",
            "Share of the time in which device memory was read or written. Decoding lives on it: high with high "
            "output is good, low while decoding means small batches.",
            "percentunit",
            (_by_card("memory_bandwidth_utilization_ratio"),),
            maximum=1,
        ),
        _panel(
            "PCIe traffic",
            "Bytes a second, sampled for 20 ms once a second. Low is normal; high in a block means swapping to host "
            "memory, or tensor parallelism without NVLink.",
            "Bps",
            (chosen("max by (gpu, direction) (bakeoff_gpu_pcie_bytes_per_second)", f"{CARD} {{{{direction}}}}"),),
        ),
    ),
)

POWER = Row(
    "Power and energy",
    (
        _panel(
            "Power by card",
            "What the board draws, and its limit. At the limit the clocks go down: then two engines compare how they "
            "live with the limit.",
            "watt",
            (_by_card("power_watts", what="draws"), _by_card("power_limit_watts", what="limit")),
            width=6,
        ),
        _panel(
            "Power by engine",
            "Mean power of 30 s of the GPUs that hold the engine's processes; where these cannot be told apart, of "
            "all GPUs while its block runs. Low is good for the same tokens: read it with output tokens per joule.",
            "watt",
            (chosen(f"engine:gpu_power_watts:mean{{{ENGINE}}}"),),
            width=6,
        ),
        _panel(
            "Output tokens per joule",
            "Output tokens for each joule of those GPUs. High is good; compare at the same load.",
            "short",
            (chosen(f"engine:tokens_per_joule:ratio{{{ENGINE}}}"),),
            width=6,
        ),
        _panel(
            "Energy in this time range",
            "Joules that each card drew in the whole time range shown, idle times included.",
            "joule",
            (Query("max by (gpu) (increase(bakeoff_gpu_energy_joules_total[$__range]))", CARD, instant=True),),
            kind="stat",
            width=6,
        ),
    ),
)

CLOCKS = Row(
    "Clocks, heat and faults",
    (
        _panel(
            "SM clock",
            "Clock of the processors. Good: flat, and equal in both engines' blocks. A step down is throttling.",
            "hertz",
            (_by_card("clock_hertz", '{clock="sm"}'),),
            width=6,
        ),
        _panel(
            "Memory clock",
            "Clock of the device memory. Good: flat; it falls only when the card idles.",
            "hertz",
            (_by_card("clock_hertz", '{clock="memory"}'),),
            width=6,
        ),
        _panel(
            "Temperature",
            "Of the chip and of its memory. Good: the same in both engines' blocks; above 85 °C most cards throttle.",
            "celsius",
            (
                _by_card("temperature_celsius", '{sensor="gpu"}', "chip"),
                _by_card("temperature_celsius", '{sensor="memory"}', "memory"),
            ),
            minimum=None,
            width=6,
            bad_from=85,
        ),
        _panel(
            "Throttling",
            "Why clocks were held down; idleness is left out. Good: nothing. Under the power cap both engines "
            "are compared at that cap; heat makes the later block the slower one.",
            "none",
            (chosen('max by (gpu, reason) (bakeoff_gpu_throttle{reason!="idle"}) == 1', f"{CARD} {{{{reason}}}}"),),
            no_data="Nothing held the clocks down, or no GPU is watched",
            kind="state-timeline",
            width=6,
            states={1: "held down"},
            bad_from=1,
        ),
        _panel(
            "NVLink traffic",
            "Payload over all links. With tensor parallelism it follows the tokens; without, it is zero.",
            "Bps",
            (
                chosen(
                    "max by (gpu, direction) (rate(bakeoff_gpu_nvlink_bytes_total[30s]))", f"{CARD} {{{{direction}}}}"
                ),
            ),
            no_data="No GPU with NVLink is watched here",
        ),
        _panel(
            "Memory errors (ECC)",
            "Errors in this time range. Good: zero. Uncorrected ones end the process; many corrected ones cost time.",
            "short",
            (
                Query(
                    "max by (gpu, kind) (increase(bakeoff_gpu_ecc_errors_total[$__range]))",
                    f"{CARD} {{{{kind}}}}",
                    instant=True,
                ),
            ),
            kind="stat",
            bad_from=1,
        ),
        _panel(
            "Cards that answer",
            "Whether each card answers the driver. Good: up. One that is down fell off the bus: its block does not "
            "count.",
            "none",
            (_by_card("up"),),
            kind="stat",
            states={0: "down", 1: "up"},
        ),
    ),
)

BOARD = Board(
    "bakeoff-gpu",
    "GPU",
    "Whose memory it is, and whether the cards ran as fast as they can: power, clocks, heat, throttling.",
    (MEMORY, WORK, POWER, CLOCKS),
)
