"""Schedulers: pure functions of arrivals, each as the engine of its name has it."""

from __future__ import annotations

from simulator.policies.ksana import KsanaPolicy
from simulator.policies.sequence import Plan, Policy, Sequence
from simulator.policies.vllm import VllmPolicy

POLICIES: dict[str, type[Policy]] = {"vllm": VllmPolicy, "ksana": KsanaPolicy}

__all__ = ["POLICIES", "KsanaPolicy", "Plan", "Policy", "Sequence", "VllmPolicy"]
