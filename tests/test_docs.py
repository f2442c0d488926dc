"""Pages name files that are there."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGES = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{page}: {target}"
        if heading:
            assert heading in anchors(found), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_our_own_files_are_called_what_they_are_called(page):
    ours = "|".join(path.name for path in TOP.iterdir() if path.is_dir() and (path / "__init__.py").exists())
    for name in re.findall(rf"`((?:{ours}|docs|prometheus)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (TOP / name).exists(), f"{page}: {name}"


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as code hosts make it of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_table_of_rooms_is_the_order_that_lint_holds():
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    held = {room.strip(): height for height, row in enumerate(reversed(layers)) for room in row.split("|")}
    rows = re.findall(
        r"^\| (\d+) \| (.*) \|$", (TOP / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    told = [[name.strip("/") for name in re.findall(r"`([\w/]+)` ?(?:\(|,|$)", words)] for _, words in rows]
    assert sorted(name for row in told for name in row) == sorted(held)
    for lower, higher in itertools.pairwise(told):
        assert max(held[name] for name in lower) < min(held[name] for name in higher)


def test_the_walks_name_files_of_the_room_that_they_enter_and_enter_each_once():
    page = (TOP / "docs/architecture.md").read_text(encoding="utf-8")
    walks = page.split("## Three walks")[1].split("\n## ")[0].split("\n**")[1:]
    assert len(walks) == 3
    for walk in walks:
        rooms = []
        for step in re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]:
            place, *names = re.findall(r"`([\w/.-]+?(?:\.py|\.yaml|/))`", step)
            room = TOP / place if place.endswith("/") else (TOP / place).parent
            rooms.append(room)
            assert (TOP / place).exists(), place
            assert all((room / name).exists() or (TOP / name).exists() for name in names), step
        assert len(rooms) == len(set(rooms)) > 5
