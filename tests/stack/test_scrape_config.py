from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loadgen.endpoints.seats import Seat
from stack.scrape_config import prometheus_files

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("gpu_exporter", [None, "gpu-exporter:9102"])
def test_the_gpu_exporter_is_scraped_where_there_is_one(gpu_exporter):
    parts = {"client": "c:1", "engine_exporter": "e:2", "prometheus": "p:3"}
    seats = [
        Seat(name=name, kind=kind, base_url=f"http://{name}:4")
        for name, kind in (("x", "vllm"), ("pushes-its-metrics", "ksana"), ("has-none", None))
    ]
    text = prometheus_files(CHECKOUT, seats, **parts, gpu_exporter=gpu_exporter)["prometheus.yml"]
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in YAML(typ="safe").load(text)["scrape_configs"]
    }
    expected = {"bakeoff-client": ["c:1"], "engine-exporter": ["e:2"], "x": ["x:4"], "prometheus": ["p:3"]}
    assert jobs == expected | ({"gpu-exporter": [gpu_exporter]} if gpu_exporter else {})
