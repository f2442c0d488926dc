"""The GPUs: whose memory, and whether the cards ran as fast as they can."""

from __future__ import annotations

from collections.abc import Mapping

from grafana.boards import reasons
from grafana.boards.board import Board, Kind, Panel, Query, Row
from grafana.boards.queries import ENGINE, chosen

CARD = "GPU {{gpu}}"


def _panel(
    title: str,
    about: str,
    unit: str,
    *queries: tuple[str, str],
    no_data: str = reasons.NO_GPU,
    kind: Kind = "timeseries",
    width: int = 8,
    maximum: float | None = None,
    minimum: float | None = 0,
    bad_from: float | None = None,
    instant: bool = False,
    states: Mapping[int, str] | None = None,
    gray: tuple[str, ...] = (),
    needs: str = reasons.GPU,
) -> Panel:
    """A panel of the GPU exporter's figures: queries are expressions with their legends."""
    return Panel(
        title=title,
        about=about,
        unit=unit,
        queries=tuple(Query(expr if instant else chosen(expr), legend, instant=instant) for expr, legend in queries),
        no_data=no_data,
        kind=kind,
        width=width,
        minimum=minimum,
        maximum=maximum,
        bad_from=bad_from,
        states=states or {},
        gray=gray,
        never_on_cpu=needs,
    )


def _by_card(series: str, labels: str = "") -> str:
    return f"max by (gpu) (bakeoff_gpu_{series}{labels})"


MEMORY = Row(
    "Memory",
    (
        _panel(
            "GPU memory by engine",
            "What each engine's processes hold, all GPUs together; `other` is everybody else's. Good: only the engine "
            "whose turn it is holds any. Memory that another engine keeps is missing from this one's KV cache.",
            "bytes",
            ('sum by (engine) (bakeoff_gpu_engine_memory_bytes{engine=~"$engine|other"})', "{{engine}}"),
            no_data="No GPU is watched here, or its processes cannot be told apart (BAKEOFF_GPU_PROCESSES)",
            gray=("other",),
            width=12,
        ),
        _panel(
            "GPU memory by card",
            "Used, and the most used at once since the last look (sampled 20 times a second): a peak far above the "
            "line is what nearly ran out of memory. Good: room left below the top line.",
            "bytes",
            (_by_card("memory_used_bytes"), f"{CARD} used"),
            (_by_card("memory_peak_bytes"), f"{CARD} peak"),
            (_by_card("memory_reserved_bytes"), f"{CARD} reserved by the driver"),
            (_by_card("memory_total_bytes"), f"{CARD} all"),
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
            (_by_card("utilization_ratio"), CARD),
            maximum=1,
        ),
        _panel(
            "Memory bandwidth busy",
            "Share of the time in which device memory was read or written. Decoding lives on it: high with high "
            "output is good, low while decoding means small batches.",
            "percentunit",
            (_by_card("memory_bandwidth_utilization_ratio"), CARD),
            maximum=1,
        ),
        _panel(
            "PCIe traffic",
            "Bytes a second, sampled for 20 ms once a second. Low is normal; high in a block means swapping to host "
            "memory, or tensor parallelism without NVLink.",
            "Bps",
            (
                "max by (gpu, direction) (bakeoff_gpu_pcie_bytes_per_second)",
                f"{CARD} {{{{direction}}}}",
            ),
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
            (_by_card("power_watts"), f"{CARD} draws"),
            (_by_card("power_limit_watts"), f"{CARD} limit"),
            width=6,
        ),
        _panel(
            "Power by engine",
            "Mean power of 30 s of the GPUs that hold the engine's processes; where these cannot be told apart, of "
            "all GPUs while its block runs. Low is good for the same tokens: read it with output tokens per joule.",
            "watt",
            (f"engine:gpu_power_watts:mean{{{ENGINE}}}", "{{engine}}"),
            width=6,
        ),
        _panel(
            "Output tokens per joule",
            "Output tokens for each joule of those GPUs. High is good; compare at the same load.",
            "short",
            (f"engine:tokens_per_joule:ratio{{{ENGINE}}}", "{{engine}}"),
            width=6,
        ),
        _panel(
            "Energy in this time range",
            "Joules that each card drew in the whole time range shown, idle times included.",
            "joule",
            ("max by (gpu) (increase(bakeoff_gpu_energy_joules_total[$__range]))", CARD),
            kind="stat",
            width=6,
            instant=True,
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
            (_by_card("clock_hertz", '{clock="sm"}'), CARD),
            width=6,
        ),
        _panel(
            "Memory clock",
            "Clock of the device memory. Good: flat; it falls only when the card idles.",
            "hertz",
            (_by_card("clock_hertz", '{clock="memory"}'), CARD),
            width=6,
        ),
        _panel(
            "Temperature",
            "Of the chip and of its memory. Good: the same in both engines' blocks; above 85 °C most cards throttle.",
            "celsius",
            (_by_card("temperature_celsius", '{sensor="gpu"}'), f"{CARD} chip"),
            (_by_card("temperature_celsius", '{sensor="memory"}'), f"{CARD} memory"),
            minimum=None,
            width=6,
            bad_from=85,
        ),
        Panel(
            title="Throttling",
            about="Why clocks were held down; idleness is left out. Good: nothing. Under the power cap both engines "
            "are compared at that cap; heat makes the later block the slower one.",
            unit="none",
            queries=(
                Query(
                    chosen('max by (gpu, reason) (bakeoff_gpu_throttle{reason!="idle"}) == 1'),
                    f"{CARD} {{{{reason}}}}",
                ),
            ),
            no_data="Nothing held the clocks down, or no GPU is watched",
            kind="state-timeline",
            width=6,
            states={1: "held down"},
            bad_from=1,
            never_on_cpu=reasons.GPU,
        ),
        _panel(
            "NVLink traffic",
            "Payload over all links. With tensor parallelism it follows the tokens; without, it is zero.",
            "Bps",
            (
                "max by (gpu, direction) (rate(bakeoff_gpu_nvlink_bytes_total[30s]))",
                f"{CARD} {{{{direction}}}}",
            ),
            no_data="No GPU with NVLink is watched here",
            needs=reasons.NVLINK,
        ),
        _panel(
            "Memory errors (ECC)",
            "Errors in this time range. Good: zero. Uncorrected ones end the process; many corrected ones cost time.",
            "short",
            (
                "max by (gpu, kind) (increase(bakeoff_gpu_ecc_errors_total[$__range]))",
                f"{CARD} {{{{kind}}}}",
            ),
            kind="stat",
            instant=True,
            bad_from=1,
        ),
        _panel(
            "Cards that answer",
            "Whether each card answers the driver. Good: up. One that is down fell off the bus: its block does not "
            "count.",
            "none",
            (_by_card("up"), CARD),
            kind="stat",
            states={0: "down", 1: "up"},
        ),
    ),
)

BOARD = Board(
    uid="bakeoff-gpu",
    title="GPU",
    about="Whose memory it is, and whether the cards ran as fast as they can: power, clocks, heat, throttling.",
    rows=(MEMORY, WORK, POWER, CLOCKS),
)
