"""Check that the pages in docs/engines name lines that are there: `file.py:10-20`, in the source trees given.

    python -m benchmarks.page_references KSANALLM/src/ksana_llm SITE_PACKAGES/vllm

A name must end one path of the trees only; its lines must exist, and the first and the last must not be blank. A name
of the code right before it, as in `allocate` (`pool.py:10-20`), must stand in those lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PAGES = Path(__file__).resolve().parents[1] / "docs" / "engines"
REFERENCE = re.compile(r"(?:`(\w+)`\s+\(?)?`([\w./-]+\.(?:py|cpp|h)):(\d+)(?:-(\d+))?`")
KINDS = {".py", ".cpp", ".h"}


def references(page: str) -> list[tuple[str, str, int, int]]:
    """Return what a page refers to: the name of the code before it or "", file, first and last line."""
    found = REFERENCE.findall(page)
    return [(name, file, int(first), int(last or first)) for name, file, first, last in found]


def faults(page: str, sources: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield what is wrong with a page's references; `sources` are the lines of files by their paths."""
    for name, file, first, last in references(page):
        what = f"{file}:{first}-{last}"
        paths = [path for path in sources if f"/{path}".endswith(f"/{file}")]
        if len(paths) != 1:
            yield f"{what}: {len(paths)} files are called so: {', '.join(sorted(paths)[:4])}"
            continue
        lines = sources[paths[0]]
        if not 1 <= first <= last <= len(lines):
            yield f"{what}: {paths[0]} has {len(lines)} lines"
        elif not (lines[first - 1].strip() and lines[last - 1].strip()):
            yield f"{what}: begins or ends with a blank line"
        elif name and not any(name in line for line in lines[first - 1 : last]):
            yield f"{what}: {name} is not there"


def read(trees: list[Path]) -> dict[str, list[str]]:
    """Return the lines of the trees' source files, by their paths in their tree."""
    return {
        str(path.relative_to(tree.parent)): path.read_text(encoding="utf-8").splitlines()
        for tree in trees
        for path in sorted(tree.rglob("*"))
        if path.suffix in KINDS and path.is_file()
    }


def main() -> int:
    """Print each fault, and how many references there are."""
    trees = [Path(name) for name in sys.argv[1:]]
    if not trees or not all(tree.is_dir() for tree in trees):
        print("Give the folders src/ksana_llm of KsanaLLM and vllm of the wheel.", file=sys.stderr)
        return 2
    sources = read(trees)
    count = bad = 0
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        count += len(references(text))
        for fault in faults(text, sources):
            bad += 1
            print(f"{page.name}: {fault}")
    print(f"{count} references, {bad} wrong")
    return 1 if bad or not count else 0


if __name__ == "__main__":
    sys.exit(main())
