"""Strict reading of a report: tags balance, ids are unique, nothing points outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}
REFERENCES = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


class Page(HTMLParser):
    """Parses a page and collects what the tests ask about."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.text = ""
        self.svgs: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "svg":
            self.svgs.append([])
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
                if self.svgs and "svg" in self.stack:
                    self.svgs[-1].append(value)
            if name in REFERENCES:
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1]}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def check(source: str) -> Page:
    """Parse a report and assert what every report must hold to."""
    page = Page(source)
    repeated = {name for name in page.ids if page.ids.count(name) > 1}
    assert not repeated, f"ids used twice: {sorted(repeated)[:5]}"
    assert all(reference.startswith("#") for reference in page.references), page.references
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    used = set(re.findall(r"url\(#([^)]+)\)", source))
    assert used <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import|xmlns", source)
    assert not page.handlers
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "img", "base", "form"}
    assert "#0a0b0" not in source and "#0a0c0" not in source, "a placeholder colour was left"
    assert len(source.encode()) < 5_000_000
    return page
