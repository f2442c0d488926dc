"""JUnit XML of a gate: a test case for each threshold and cell, as CI systems read it.

A failed threshold is a `failure`, an undecided one an `error`: it breaks the build like exit code 4 does, and is told
apart from a failure. No element or attribute beyond those that Jenkins' schema of JUnit files knows.
"""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from loadgen.gate.decide import Decision
from loadgen.gate.words import estimate_words, sentence, subject
from loadgen.presentation.text import printable


def junit_xml(decisions: Sequence[Decision], *, name: str, started_at: float) -> str:
    """Return the document.

    Args:
        decisions: one test case each.
        name: of the suite, such as the ids of the runs.
        started_at: of the run that was judged, seconds since the Unix epoch.
    """
    counts = {
        "tests": str(len(decisions)),
        "failures": str(sum(decision.outcome == "failed" for decision in decisions)),
        "errors": str(sum(decision.outcome == "undecided" for decision in decisions)),
    }
    root = ET.Element("testsuites", {"name": "bakeoff", **counts, "time": "0"})
    moment = datetime.datetime.fromtimestamp(started_at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.SubElement(
        root, "testsuite", {"name": _clean(name), **counts, "skipped": "0", "time": "0", "timestamp": moment}
    )
    for decision in decisions:
        case = decision.case
        known = {
            "classname": _clean(f"bakeoff.{subject(decision)}.{case.cell}"),
            "name": _clean(str(case.threshold)),
            "time": "0",
        }
        element = ET.SubElement(suite, "testcase", known)
        if decision.outcome != "held":
            tag = "failure" if decision.outcome == "failed" else "error"
            message = _clean(f"{estimate_words(decision)}: {decision.reason}")
            told = ET.SubElement(element, tag, {"type": decision.outcome, "message": message})
            told.text = _clean(sentence(decision))
        ET.SubElement(element, "system-out").text = _clean(estimate_words(decision))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Text without what XML 1.0 cannot hold."""
    return printable(text)
