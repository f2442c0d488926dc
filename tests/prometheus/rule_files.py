"""The rules as they lie in the repository, and the names in their expressions."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FOLDER = Path(__file__).resolve().parents[2] / "prometheus"
KEYWORDS = {"and", "or", "unless", "by", "on", "offset", "group_left"}
# What holds names that are no metrics: matchers, texts, durations, lists of labels.
NO_METRICS = re.compile(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\b(?:by|on|group_left)\s*\([^)]*\)|\boffset\s+\w+")
NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A recording rule or an alert."""

    name: str
    expression: str
    records: bool

    def metrics(self) -> set[str]:
        """The names of all series that the expression reads."""
        return set(NAME.findall(NO_METRICS.sub(" ", self.expression))) - KEYWORDS


def load(path: Path) -> Any:
    """A YAML file."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def all_rules() -> list[Rule]:
    """All rules and alerts, in order."""
    return [
        Rule(rule.get("record") or rule["alert"], rule["expr"], "record" in rule)
        for name in ("rules.yml", "alerts.yml")
        for group in load(FOLDER / name)["groups"]
        for rule in group["rules"]
    ]


def rule_tests() -> list[Path]:
    """promtool's test files."""
    return sorted((FOLDER / "tests").glob("*.yml"))
