"""A gate as GitHub-flavoured Markdown, for a pull request or a job's summary."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.gate.decide import Decision, exit_code
from loadgen.gate.words import MARKS, estimate_words, gravest_first, headline, subject
from loadgen.presentation.text import cell_words
from loadgen.report.markdown import code, escape

ICONS = {0: "✅", 3: "❌", 4: "⚠️"}


def gate_markdown(decisions: Sequence[Decision], *, title: str) -> str:
    """Return a heading, the outcome in a sentence, and a table, what failed first."""
    lines = [
        f"## {ICONS[exit_code(decisions)]} {escape(title)}",
        "",
        f"**{escape(headline(decisions))}**",
        "",
        "| | threshold | cell | of | found, 95% interval | why |",
        "| :-: | --- | --- | --- | ---: | --- |",
    ]
    for decision in gravest_first(decisions):
        case = decision.case
        cells = [
            MARKS[decision.outcome],
            code(str(case.threshold)),
            escape(cell_words(case.cell)),
            escape(subject(decision)),
            escape(estimate_words(decision)),
            escape(decision.reason),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "A threshold fails when its whole interval lies beyond the limit, and holds when its whole 95% interval lies "
        "within it. Among several thresholds and cells, failing takes a wider interval (Holm's correction).",
    ]
    return "\n".join(lines) + "\n"
