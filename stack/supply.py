"""What Bakeoff is made of: every package of every lock file, as a CycloneDX list of parts and as a list of licences.

`python -m stack.supply sbom` prints CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/), `licences` Markdown.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.machine import ROOT

UNKNOWN = "not told here"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_name_separators = re.compile(r"[-_.]+")


@dataclass
class Part:
    """One package at one version."""

    name: str
    version: str
    hashes: set[str] = field(default_factory=set)
    """SHA-256 of its files, of any platform."""
    locks: set[str] = field(default_factory=set)
    """The lock files that it is in, from the checkout's top."""

    @property
    def purl(self) -> str:
        """Its package URL (https://github.com/package-url/purl-spec)."""
        return f"pkg:pypi/{self.name}@{self.version.replace('+', '%2B')}"


def lock_files(checkout: Path) -> list[Path]:
    """Every lock file of a checkout."""
    folders = ("", "docker/*/", "grafana/annotator/", "stack/engines/*/", "tests/docker/")
    return sorted(path for folder in folders for path in checkout.glob(f"{folder}*.lock"))


def parts(checkout: Path) -> list[Part]:
    """All packages of all lock files, by name and version."""
    found: dict[tuple[str, str], Part] = {}
    for path in lock_files(checkout):
        part: Part | None = None
        for line in path.read_text(encoding="utf-8").splitlines():
            if pinned := _PINNED.match(line):
                name, version = _name_separators.sub("-", pinned[1]).lower(), pinned[2]
                part = found.setdefault((name, version), Part(name, version))
                part.locks.add(str(path.relative_to(checkout)))
            if part is not None:
                part.hashes.update(_HASH.findall(line))
    return [found[key] for key in sorted(found)]


def licences(folders: Sequence[Path]) -> dict[str, str]:
    """Licence by package, as the packages that are installed here tell: in this environment, and in `folders`."""
    search = [*sys.path, *(str(path) for folder in folders for path in folder.glob("*/lib/python*/site-packages"))]
    told = {}
    for found in importlib.metadata.distributions(path=search):
        facts = found.metadata
        classified = [
            text for text in facts.get_all("Classifier") or [] if text.startswith("License :: OSI Approved ::")
        ]
        licence = (facts.get_all("License-Expression") or [""])[0] or "; ".join(
            text.rpartition(" :: ")[2] for text in classified
        )
        licence = licence or ((facts.get_all("License") or [""])[0].strip().splitlines() or [""])[0][:60]
        if licence:
            told[_name_separators.sub("-", str(facts["Name"])).lower()] = licence
    return told


def sbom(checkout: Path) -> str:
    """The parts as CycloneDX JSON. The same lock files give the same text."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    components = [
        {
            "type": "library",
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            "properties": [{"name": "bakeoff:lock", "value": lock} for lock in sorted(part.locks)],
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/project/{part.name}/{part.version}/",
                    "hashes": [{"alg": "SHA-256", "content": each} for each in sorted(part.hashes)],
                }
            ],
        }
        for part in parts(checkout)
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": project["name"], "version": project["version"]},
        },
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"


def notice(checkout: Path) -> str:
    """The parts with their licences, as a Markdown table."""
    told = licences([checkout / ".bakeoff" / "venvs"])
    rows = [
        f"| {part.name} | {part.version} | {told.get(part.name, UNKNOWN).replace('|', '/')} | {len(part.locks)} |"
        for part in parts(checkout)
    ]
    head = (
        "# Third-party packages\n\nEvery package of every lock file, with its licence as the package itself tells it; "
        f"`{UNKNOWN}` for one that is not\ninstalled where `make licences` was run.\n\n"
        "| package | version | licence | lock files |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one of them; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    made = {"sbom": sbom, "licences": notice}
    if len(given) != 1 or given[0] not in made:
        print("usage: python -m stack.supply sbom|licences", file=sys.stderr)
        return 2
    print(made[given[0]](ROOT), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
