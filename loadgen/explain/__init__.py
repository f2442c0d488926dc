"""Which known mechanisms of engines show in a run, each with its evidence and the page that explains it."""

from loadgen.explain.findings import EngineFindings, Finding, Place, findings, of_engine

__all__ = ["EngineFindings", "Finding", "Place", "findings", "of_engine"]
