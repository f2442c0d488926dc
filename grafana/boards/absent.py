"""Which panels have no data, and why: what a test of a running stack may leave out, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from grafana.boards.catalogue import BOARDS

Place = tuple[str, str]
"""A board's uid and a panel's title."""

NEVER_ON_CPU: dict[Place, str] = {
    (board.uid, panel.title): panel.never_on_cpu for board in BOARDS for panel in board.panels() if panel.never_on_cpu
}
"""Panels without data on a machine with CPU engines (vLLM and llama.cpp, closed loop, nothing going wrong)."""

NOT_TOLD: dict[Place, Mapping[str, str]] = {
    (board.uid, panel.title): panel.not_told for board in BOARDS for panel in board.panels() if panel.not_told
}
"""Panels that have data, but none of some kinds of engine; the reasons by kind."""
