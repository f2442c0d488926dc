"""Engines' metrics pages under our names: golden values from real pages, and pages that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.monitoring.engine_page import MAX_SERIES, NAMES, PageError, read_engine, read_gpus

DATA = Path(__file__).parents[2] / "data"
VLLM_024 = {
    "ttft_s": 1216.367432832718,
    "ttft_n": 1136,
    "queue_s": 790.295368803002,
    "queue_n": 1136,
    "prompt_tokens": 2_181_120,
    "output_tokens": 145_408,
    "hits": 0,
    "queries": 0,
    "recomputed": 0,
    "running": 0,
    "waiting": 0,
    "steps": 10_513,
    "kv_used": 0,
}
KSANA = {
    "ttft_s": 99.099374,
    "ttft_n": 1209,
    "queue_s": 39.181967,
    "queue_n": 1238,
    "prompt_tokens": 2_177_655,
    "output_tokens": 124_012,
    "hits": 2_177_655 + 124_012 - 1238 - 2_300_429,
    "queries": 2_177_655,
    "recomputed": 0,
    "swapped": 0,
    "running_sum": 124_012,
    "running_n": 30_423,
    "waiting_sum": 231,
    "waiting_n": 30_423,
}
SGLANG = {
    "ttft_s": 15.023859545999585,
    "ttft_n": 4,
    "queue_s": 0.013305341999512166,
    "queue_n": 4,
    "prompt_tokens": 58,
    "output_tokens": 48,
    "hits": 26,
    "queries": 58,
    "running": 0,
    "waiting": 0,
    "kv_used": 0,
}
LLAMACPP = {"prompt_tokens": 17, "output_tokens": 32, "hits": 0, "queries": 17, "running": 0, "waiting": 0}


def page(name: str) -> str:
    return (DATA / f"{name}.metrics.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("vllm-0.24.0-gpu", VLLM_024),
        ("ksana-c451219-exporter", KSANA),
        ("llamacpp-b11549", LLAMACPP),
        ("sglang-0.5.23-cpu", SGLANG),
    ],
)
def test_real_pages(name, figures):
    assert read_engine(page(name), "ksana") == pytest.approx(figures)


def test_another_version_of_vllm_has_the_same_names():
    found = read_engine(page("vllm-0.32.0-cpu"), "")
    assert found.keys() == VLLM_024.keys()
    assert (found["queries"], found["prompt_tokens"], found["output_tokens"]) == (15, 15, 32)


def test_models_and_ranks_add_up_and_the_fullest_kv_cache_counts():
    text = "".join(
        f'vllm:generation_tokens_total{{engine="{rank}",model_name="{model}"}} {10 * rank + 1}\n'
        f'vllm:kv_cache_usage_perc{{engine="{rank}",model_name="{model}"}} 0.{rank + 3}\n'
        for rank in (0, 1)
        for model in ("m", "lora")
    )
    assert read_engine(text, "") == {"output_tokens": 24, "kv_used": 0.4}


def test_ksana_that_preempted_and_hit():
    text = (
        page("ksana-c451219-exporter")
        .replace("ksana_forwarding_token_num_total{", "ksana_recompute_request_num_total{", 1)
        .replace("2.300429e+06", "7", 1)
    )
    found = read_engine(text, "ksana")
    assert "hits" not in found, "what was computed is not told"
    assert found["recomputed"] == 7


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e300", "x", ""])
def test_a_value_that_cannot_be_is_none(value):
    text = f"vllm:generation_tokens_total {value}\nvllm:prompt_tokens_total 5\n"
    assert read_engine(text, "") == {"prompt_tokens": 5}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no figure of vLLM"),
        ("<html>hello</html>\n", "no figure of vLLM"),
        ("vllm:prompt_tokens_total 5\nvllm:generation_tokens_total 1454", "ends in the middle"),
        ('vllm:prompt_tokens_total{model_name="m', "ends in the middle"),
        ('vllm:prompt_tokens_total{m="x"} 5\n' * (MAX_SERIES + 1), "more than 5000 series"),
    ],
    ids=["empty", "html", "cut off in a value", "cut off in a label", "without end"],
)
def test_pages_that_are_none(text, why):
    with pytest.raises(PageError, match=why):
        read_engine(text, "")


def test_the_exporter_of_several_ksanas_is_asked_for_one():
    line = 'ksana_computed_output_token_num_total{{engine="{}"}} {}\n'
    two = line.format("a", 3) + line.format("b", 5)
    assert read_engine(two, "b")["output_tokens"] == 5
    assert read_engine(line.format("ksana", 3), "seat-a")["output_tokens"] == 3, "the only one is meant"
    with pytest.raises(PageError, match="figures of a, b, and of no c"):
        read_engine(two, "c")


OF_BUSY = {
    "gpu_memory_all": 925_696_000,
    "gpu_joules:0": 10_800.035,
    "gpu_watts:0": 691.583,
    "gpu_peak:0": 925_696_000,
    "gpu_sm_hz:0": 1.455e9,
    "gpu_pcie_tx:0": 8_233_000,
    "gpu_pcie_rx:0": 15_310_000,
    "gpu_held_power_cap:0": 1,
    **{f"gpu_held_{reason}:0": 0 for reason in ("hardware_slowdown", "software_thermal", "hardware_thermal")},
    **{f"gpu_held_{reason}:0": 0 for reason in ("power_brake", "sync_boost")},
}


def test_gpus_whose_processes_are_known():
    found = read_gpus(page("h200-busy"), ["vllm", "load"])
    own = {"gpu_memory": 916_455_424, "gpu_own:0": 916_455_424, "gpu_on:0": 1}
    assert found == pytest.approx(OF_BUSY | own)


def test_each_gpu_of_an_engine_that_spans_several_and_shares_one():
    def line(name: str, gpu: int, value: float, **more: str) -> str:
        labels = ",".join(f'{key}="{text}"' for key, text in {"gpu": str(gpu), "uuid": f"GPU-{gpu}", **more}.items())
        return f"bakeoff_gpu_{name}{{{labels}}} {value}\n"

    text = "".join(
        line("engine_processes", gpu, 1, engine=engine) + line("engine_memory_bytes", gpu, value, engine=engine)
        for engine, gpu, value in (("vllm", 0, 10), ("vllm", 1, 11), ("vllm-2", 1, 3), ("other", 2, 5))
    )
    for gpu in range(3):
        text += line("nvlink_bytes_total", gpu, 100 + gpu, direction="transmit")
        text += line("nvlink_bytes_total", gpu, 200 + gpu, direction="receive")
    links = {f"gpu_nvlink_{way}:{n}": base + n for n in range(3) for way, base in (("tx", 100), ("rx", 200))}
    of_one = {"gpu_memory": 21, "gpu_own:0": 10, "gpu_own:1": 11, "gpu_on:0": 1, "gpu_on:1": 1}
    assert read_gpus(text, ["vllm"]) == links | of_one
    assert read_gpus(line("nvlink_bytes_total", 0, 5e20, direction="transmit"), []) == {"gpu_nvlink_tx:0": 5e20}
    assert read_gpus(text, ["vllm-2"]) == links | {"gpu_memory": 3, "gpu_own:1": 3, "gpu_on:1": 1}


def test_gpus_of_strangers_are_all_gpus():
    found = read_gpus(page("h200-busy"), ["vllm", "port-8000"])
    assert found == pytest.approx(OF_BUSY)
    with pytest.raises(PageError, match="not the page of Bakeoff's GPU exporter"):
        read_gpus(page("llamacpp-b11549"), [])


def test_a_machine_without_a_gpu_has_no_figures_and_no_fault():
    assert read_gpus("bakeoff_gpu_devices 0.0\n", ["vllm"]) == {}


def test_every_name_is_of_one_engine_only():
    series = [name for names in NAMES.values() for made_of in names.values() for name in made_of]
    assert all(sum(name in str(names) for names in NAMES.values()) == 1 for name in series)
