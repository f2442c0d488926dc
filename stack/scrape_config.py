"""Prometheus' configuration: both stacks share its files, so jobs, labels, rules and alerts are the same in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2

from loadgen.endpoints.seats import Seat
from loadgen.engines import GENERIC, get_engine
from loadgen.files import atomic_write

TEMPLATE = Path("prometheus") / "prometheus.yml.j2"
RULES = ("rules.yml", "alerts.yml")
LOOKBACK = "--query.lookback-delta=15s"
"""An option of every Prometheus here: how long a series' last value is told where its end was not seen, as when
Prometheus itself was away. Three evaluations of the rules, the longest interval; its default, five minutes,
would bridge gaps."""


def prometheus_files(checkout: Path, engines: Iterable[Seat], **addresses: str | None) -> dict[str, str]:
    """The text of each file of the configuration by its name: the scrape configuration, and beside it the rules.

    Args:
        checkout: where their sources lie.
        engines: those that serve metrics are scraped, where traffic reaches them.
        addresses: HOST:PORT of `client`, `engine_exporter` and `prometheus`, and where there are such of
            `gpu_exporter` and `ksana_exporter`.
    """
    parts: dict[str, object] = {"gpu_exporter": None, "ksana_exporter": None, **addresses}
    # KsanaLLM pushes its metrics.
    parts["engines"] = {
        seat.name: seat.base_url.removeprefix("http://")
        for seat in engines
        if get_engine(seat.kind or GENERIC).metrics_path
    }
    rules = {name: (checkout / TEMPLATE).with_name(name).read_text(encoding="utf-8") for name in RULES}
    return {"prometheus.yml": render_template(checkout / TEMPLATE, **parts), **rules}


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
