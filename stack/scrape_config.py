"""Prometheus' configuration: both stacks share its files, so jobs, labels, rules and alerts are the same in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATE = Path("prometheus") / "prometheus.yml.j2"
RULES = ("rules.yml", "alerts.yml")
LOOKBACK = "--query.lookback-delta=15s"
"""An option of every Prometheus here: how long a series' last value is told where its end was not seen, as when
Prometheus itself was away. Three evaluations of the rules, the longest interval; its default, five minutes,
would bridge gaps."""


@dataclass(frozen=True)
class Target:
    """Who is scraped, by the name of its job; the address is HOST:PORT."""

    name: str
    address: str


def prometheus_files(checkout: Path, scrape_config: str) -> dict[str, str]:
    """The text of each file of the configuration by its name: the scrape configuration, and beside it the rules."""
    rules = {name: (checkout / TEMPLATE).with_name(name).read_text(encoding="utf-8") for name in RULES}
    return {"prometheus.yml": scrape_config, **rules}


def write_prometheus_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files so that another user's Prometheus can read them; the folder is there."""
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)


def render_scrape_config(
    checkout: Path,
    *,
    client: str,
    engine_exporter: str,
    prometheus: str,
    engines: Sequence[Target],
    gpu_exporter: str | None = None,
    ksana_exporter: str | None = None,
) -> str:
    """The configuration for these addresses (HOST:PORT); `engines` are those that serve metrics."""
    environment = jinja2.Environment(  # noqa: S701 - a configuration file, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string((checkout / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        client=client,
        engine_exporter=engine_exporter,
        gpu_exporter=gpu_exporter,
        ksana_exporter=ksana_exporter,
        prometheus=prometheus,
        engines=engines,
    )
