"""Reasons that several panels give for having no data."""

from __future__ import annotations

NO_REQUESTS = "No request of the chosen engines ended here"
NO_TPOT = "No request of the chosen engines ended here, or their streams tell no TPOT: see why below"
ONE_ENGINE = "Nothing to compare: needs a cell that two engines ran in this time range"
NO_GPU = "No GPU is watched here"
NO_EXPORTER = "The engine exporter does not watch these engines, or none runs"
NOT_TOLD = "The chosen engines do not tell this, or none runs"
