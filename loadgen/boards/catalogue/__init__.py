"""All boards, in the order of their links; the first is Grafana's home."""

from __future__ import annotations

from loadgen.boards.catalogue import bakeoff, client, engines, gpu
from loadgen.boards.model import Board

BOARDS: tuple[Board, ...] = (bakeoff.BOARD, engines.BOARD, gpu.BOARD, client.BOARD)
