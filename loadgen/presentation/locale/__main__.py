"""Keeps the catalogues whole: `update` takes in what the sources say and compiles, `check` tells what is amiss.

Babel extracts; it is a tool of development, not needed to run Bakeoff. Catalogues name no lines of the sources, which
change with every edit; their order is that of the sentences.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from ruamel.yaml import YAML

from loadgen.message import PLACE

HERE = Path(__file__).parent
LOADGEN = HERE.parents[1]
KEYWORDS: dict[str, Any] = {
    **dict.fromkeys(("say", "mark", "joined", "language", "told", "_")),
    "counted": (2, 3),
}
"""Functions whose first argument is one of our sentences, and one with a sentence for one and one for many."""


def literals(
    file: IO[bytes], keywords: Any, *_: object, **__: object
) -> Iterator[tuple[int, str, list[Any], list[str]]]:
    """Extract from Python by its syntax tree: Babel's own extractor loses calls within the lists of other calls."""
    for node in ast.walk(ast.parse(file.read())):
        name = _name(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and name in keywords and any(isinstance(a, ast.Constant) for a in node.args):
            yield node.lineno, name, [getattr(argument, "value", None) for argument in node.args], []


def questions(file: IO[bytes], *_: object, **__: object) -> Iterator[tuple[int, None, str, list[str]]]:
    """Extract the question of a scenario."""
    yield 1, None, YAML(typ="safe").load(file)["question"], []


SOURCES: tuple[tuple[str, Any], ...] = (
    ("**/*.py", literals),
    ("report/templates/*.j2", "jinja2.ext:babel_extract"),
    ("scenario/shipped/**/*.yaml", questions),
)


def extracted() -> dict[str | tuple[str, ...], str]:
    """Every sentence of the sources, or pair for one and many, with the place where it is first said."""
    found: dict[str | tuple[str, ...], str] = {}
    for pattern, method in SOURCES:
        for path in sorted(LOADGEN.glob(pattern)):
            place = f"{path.relative_to(LOADGEN.parent)}"
            with path.open("rb") as file:
                for line, sentence, *_ in extract(method, file, KEYWORDS, options={"trim_blocks": "1"}):
                    found.setdefault(sentence if isinstance(sentence, str) else tuple(sentence), f"{place}:{line}")
    return found


def put_together() -> list[str]:
    """Places where a sentence is put together from pieces, so that no catalogue can have it."""
    return [
        f"{path.relative_to(LOADGEN.parent)}:{node.lineno}: a sentence must stand there whole"
        for path in sorted(LOADGEN.glob("**/*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in KEYWORDS
        and any(isinstance(text, (ast.JoinedStr, ast.BinOp, ast.IfExp)) for text in _sentences(node))
    ]


def _sentences(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call that are sentences."""
    return call.args[1:] if KEYWORDS[_name(call.func)] else call.args[:1]


def _name(function: ast.expr) -> str:
    """What a call names, be it a function or an attribute."""
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def catalogues() -> list[Path]:
    """The .po file of every language."""
    return sorted(HERE.glob("*/LC_MESSAGES/*.po"))


def updated(old: Catalog, sentences: dict[str | tuple[str, ...], str]) -> Catalog:
    """The catalogue of the sentences that are said today, with what `old` has for them."""
    new = Catalog(old.locale, domain="bakeoff", header_comment=old.header_comment, fuzzy=False)
    new.project, new.version, new.copyright_holder = old.project, old.version, old.copyright_holder
    new.creation_date, new.revision_date = old.creation_date, old.revision_date
    new.last_translator, new.language_team = old.last_translator, old.language_team
    for sentence in sentences:
        known = old.get(sentence if isinstance(sentence, str) else sentence[0])
        same = known is not None and known.id == sentence
        new.add(
            sentence, known.string if known is not None and same else None, flags=known.flags if known and same else ()
        )
    return new


def written(catalogue: Catalog) -> tuple[bytes, bytes]:
    """The bytes of its .po and .mo file."""
    text, compiled = io.BytesIO(), io.BytesIO()
    write_po(text, catalogue, width=100, no_location=True, sort_output=True)
    write_mo(compiled, catalogue)
    return text.getvalue(), compiled.getvalue()


def problems(path: Path, sentences: dict[str | tuple[str, ...], str]) -> list[str]:
    """What is amiss with a catalogue, each in a line."""
    with path.open("rb") as file:
        old = read_po(file)
    found = []
    for sentence, place in sentences.items():
        known = old.get(sentence if isinstance(sentence, str) else sentence[0])
        if known is None or known.id != sentence or not _texts(known.string):
            found.append(f"{place}: no {old.locale} for {_texts(sentence)[0]!r}")
        elif known.fuzzy:
            found.append(f"{path.name}: {_texts(sentence)[0]!r} is marked fuzzy: see that it is right, and unmark it")
        else:
            found += [
                f"{path.name}: {text!r} has not the places of {_texts(sentence)[-1]!r}"
                for text in _texts(known.string)
                if sorted(PLACE.findall(text)) != sorted(PLACE.findall(_texts(sentence)[-1]))
            ]
    found += [f"{path.name}: nothing says {_texts(m.id)[0]!r} any more" for m in old if m.id and m.id not in sentences]
    text, compiled = written(updated(old, sentences))
    if not found and text != path.read_bytes():
        found.append(f"{path.name}: not in the form that `update` writes")
    binary = path.with_suffix(".mo")
    if not found and (not binary.is_file() or binary.read_bytes() != compiled):
        found.append(f"{binary.name}: not compiled from {path.name}")
    return found


def _texts(sentence: Any) -> list[str]:
    """The texts of an entry, empty ones left out."""
    return [text for text in ([sentence] if isinstance(sentence, str) else sentence or ()) if text]


def main(arguments: list[str]) -> int:
    """Run `update` or `check`. Returns the exit code."""
    if arguments not in (["update"], ["check"]):
        print("usage: python -m loadgen.presentation.locale update|check", file=sys.stderr)
        return 2
    sentences = extracted()
    if arguments == ["update"]:
        for path in catalogues():
            with path.open("rb") as file:
                text, compiled = written(updated(read_po(file), sentences))
            path.write_bytes(text)
            path.with_suffix(".mo").write_bytes(compiled)
    found = [*put_together(), *(problem for path in catalogues() for problem in problems(path, sentences))]
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        print("Put the sentences into the .po file and run `make words`.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
