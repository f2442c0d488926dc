"""All boards, in the order of their links; the first is Grafana's home."""

from __future__ import annotations

from grafana.boards import bakeoff, client, engines, gpu
from grafana.boards.board import Board

BOARDS: tuple[Board, ...] = (bakeoff.BOARD, engines.BOARD, gpu.BOARD, client.BOARD)
