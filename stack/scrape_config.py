"""Prometheus' configuration: both stacks share its files, so jobs, labels, rules and alerts are the same in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from loadgen.files import atomic_write

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
    """Write the files so that another user's Prometheus can read them."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        atomic_write(folder / name, text, mode=0o644)


def render_template(path: Path, **values: object) -> str:
    """A configuration file from its template. Every name in it must have a value."""
    environment = jinja2.Environment(  # noqa: S701 - a configuration file, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(path.read_text(encoding="utf-8")).render(**values)


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
    return render_template(
        checkout / TEMPLATE,
        client=client,
        engine_exporter=engine_exporter,
        gpu_exporter=gpu_exporter,
        ksana_exporter=ksana_exporter,
        prometheus=prometheus,
        engines=engines,
    )
