"""Links between the boards, in the head of each; time range and choices go along."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

from grafana.boards.board import Board


def links(boards: Sequence[Board]) -> list[build.DashboardLink]:
    """One link to each board, in order."""
    return [
        build.DashboardLink(board.title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{board.uid}")
        .tooltip(board.about)
        .icon("dashboard")
        .keep_time(True)
        .include_vars(True)
        for board in boards
    ]
