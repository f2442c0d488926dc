"""A scrape of a real H200 that worked hard (benchmarks/truth/gpu_exporter.py), beside what the exporter can tell."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.exporters.fake_nvml import GIB, FakeGpu
from tests.exporters.test_gpu_monitor import Bench

BUSY = Path(__file__).parents[1] / "data" / "h200-busy.metrics.txt"


def test_a_real_card_tells_all_but_what_it_does_not_have():
    gpu = FakeGpu()
    gpu.processes = [(1, GIB)]
    bench = Bench(gpu, owners={1: "load"})
    bench.run(1.5)
    families = text_string_to_metric_families(BUSY.read_text(encoding="utf-8"))
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("bakeoff_gpu_")]
    extra = {"gpu", "uuid", "name"}
    real = {
        (sample.name.removeprefix("bakeoff_gpu_"), sample.labels.get("gpu"),
         *(value for key, value in sample.labels.items() if key not in extra)): sample.value
        for sample in samples
    }  # fmt: skip
    assert {key[0] for key in bench.scrape().keys() ^ real.keys()} == {"nvlink_bytes_total"}, "it had no NVLink"
    assert real["memory_used_bytes", "0"] < real["memory_total_bytes", "0"] - real["memory_reserved_bytes", "0"]
    assert real["power_watts", "0"] <= real["power_limit_watts", "0"]
    assert real["throttle", "0", "power_cap"] == 1
