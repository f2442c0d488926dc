"""Reasons that several panels give for having no data."""

from __future__ import annotations

NO_REQUESTS = "No request of the chosen engines ended here"
ONE_ENGINE = "Nothing to compare: needs a cell that two engines ran in this time range"
NO_GPU = "No GPU is watched here"
NO_EXPORTER = "The engine exporter does not watch these engines, or none runs"
NOT_TOLD = "The chosen engines do not tell this, or none runs"

GPU = "There is no GPU on a machine with CPU engines"
NVLINK = "Only cards that NVLink joins have it"
KSANA = "Only KsanaLLM tells this"
OPEN_LOOP = "Only an open loop has a schedule"
GOES_WELL = "There is none while all goes well"

LLAMACPP_SAYS_NOT = "llama.cpp does not tell this"
KSANA_SAYS_NOT = "KsanaLLM does not tell this"
