"""Writes the page: drawings, plots and tables of `docs/attention/`, in every language."""

from __future__ import annotations

from pathlib import Path

from kernels import measured, tables
from kernels.drawings import DRAWINGS
from kernels.measured import Measured
from kernels.words import LANGUAGES

FOLDER = Path(__file__).parent.parent / "docs" / "attention"


def drawings() -> dict[Path, str]:
    """The drawings by their path in the page's folder; they rest on no measurement."""
    return {
        Path("figures") / language.code / f"{name}.svg": draw(language)
        for language in LANGUAGES
        for name, draw in DRAWINGS.items()
    }


def plots(found: Measured) -> dict[Path, str]:
    """The plots by their path in the page's folder."""
    from kernels.plots import PLOTS  # matplotlib takes a second to load

    return {
        Path("figures") / language.code / f"{name}.svg": draw(found, language)
        for language in LANGUAGES
        for name, draw in PLOTS.items()
    }


def texts(found: Measured, folder: Path = FOLDER) -> dict[Path, str]:
    """The pages with their tables made anew. Raises ValueError for a marker that is not understood, and OSError."""
    return {
        Path(language.page): tables.fill((folder / language.page).read_text(encoding="utf-8"), found, language)
        for language in LANGUAGES
    }


def write(folder: Path = FOLDER) -> list[Path]:
    """Write what has changed; returns the paths.

    Raises:
        ValueError: a measurement's file or a page's marker is not understood.
        OSError: a file cannot be read or written.
    """
    found = measured.read(folder / "data")
    changed = []
    for path, content in {**drawings(), **plots(found), **texts(found, folder)}.items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            changed.append(file)
    return changed
