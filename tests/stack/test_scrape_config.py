from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stack.scrape_config import Target, render_scrape_config

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("gpu_exporter", [None, "gpu-exporter:9102"])
def test_the_gpu_exporter_is_scraped_where_there_is_one(gpu_exporter):
    parts = {"client": "c:1", "engine_exporter": "e:2", "prometheus": "p:3", "engines": [Target("x", "x:4")]}
    text = render_scrape_config(CHECKOUT, **parts, gpu_exporter=gpu_exporter)
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in YAML(typ="safe").load(text)["scrape_configs"]
    }
    expected = {"bakeoff-client": ["c:1"], "engine-exporter": ["e:2"], "x": ["x:4"], "prometheus": ["p:3"]}
    assert jobs == expected | ({"gpu-exporter": [gpu_exporter]} if gpu_exporter else {})
