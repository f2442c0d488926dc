"""Prometheus' configuration, from the one template that both stacks share: jobs and labels are the same in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATE = Path("prometheus") / "prometheus.yml.j2"


@dataclass(frozen=True)
class Target:
    """Who is scraped, by the name of its job; the address is HOST:PORT."""

    name: str
    address: str


def render_scrape_config(
    checkout: Path,
    *,
    client: str,
    engine_exporter: str,
    prometheus: str,
    engines: Sequence[Target],
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
        ksana_exporter=ksana_exporter,
        prometheus=prometheus,
        engines=engines,
    )
