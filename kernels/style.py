"""Colours, markers and SVG for the page's pictures: one file of each shows itself light or dark, as its reader likes.

The colours of the steps are told apart with every common kind of colour blindness (after Okabe and Ito, "Color
Universal Design"), and every line has a marker of its own, so that no picture depends on colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kernels.words import Language

COLOURS: dict[str, tuple[str, str]] = {
    "text": ("#1c2024", "#e8ebee"),
    "muted": ("#5c6670", "#a0abb6"),
    "grid": ("#dfe3e7", "#2c343c"),
    "card": ("#ffffff", "#181d23"),
    "blue": ("#0067a5", "#56b4e9"),
    "orange": ("#c34e00", "#ff9a4d"),
    "green": ("#00795a", "#3ddbab"),
    "purple": ("#a0407c", "#ee9fcb"),
    "olive": ("#6a5f00", "#e6d84a"),
    "red": ("#b3261e", "#ff8a80"),
}
"""Each colour on light and on dark, by the name of its CSS variable."""

FONTS = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"


@dataclass(frozen=True)
class Look:
    """How one kernel is drawn."""

    label: str
    colour: str
    marker: str
    """matplotlib's name of the marker."""
    dashed: bool = False


LOOKS: dict[str, Look] = {
    "textbook": Look("0 textbook", "muted", "o"),
    "online-softmax": Look("1 online-softmax", "olive", "s"),
    "tensor-cores": Look("2 tensor-cores", "purple", "^"),
    "swizzle": Look("3 swizzle", "green", "D"),
    "pipelined": Look("4 pipelined", "orange", "v"),
    "hopper": Look("5 hopper", "blue", "P"),
    "flash": Look("FlashAttention-2", "text", "x", dashed=True),
    "cudnn": Look("cuDNN", "text", "+", dashed=True),
    "fa3": Look("FlashAttention-3", "text", "*", dashed=True),
}
"""By the kernel's name in the measurements: the steps of the ladder, then the libraries' kernels."""

LIBRARIES = ("flash", "cudnn", "fa3")


def style_sheet() -> str:
    """The colours as CSS variables, dark where the reader's system is."""
    light, dark = (";".join(f"--{name}:{both[i]}" for name, both in COLOURS.items()) for i in (0, 1))
    return f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"


def colour(name: str) -> str:
    """A colour as CSS. Raises ValueError for one that there is not."""
    if name != "none" and name not in COLOURS:
        raise ValueError(f"no colour called {name!r}; there are {', '.join(COLOURS)}")
    return name if name == "none" else f"var(--{name})"


class Canvas:
    """A drawing in the making; lengths in pixels, y downwards."""

    def __init__(self, width: int, height: int, title: str, language: Language) -> None:
        self.width, self.height, self.title, self.say = width, height, title, language
        self.parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "none",
        *,
        stroke: str = "none",
        opacity: float = 1,
        radius: float = 0,
        dashed: bool = False,
    ) -> None:
        """A rectangle; `opacity` is that of the fill."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'style="fill:{colour(fill)};fill-opacity:{opacity:g};stroke:{colour(stroke)}"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        fill: str = "text",
        anchor: str = "start",
        bold: bool = False,
        turn: float = 0,
    ) -> None:
        """A line of text, said in the drawing's language; `y` is its base line, `turn` in degrees."""
        weight = ";font-weight:600" if bold else ""
        turned = f' transform="rotate({turn:g} {x:g} {y:g})"' if turn else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turned} '
            f'style="font-size:{size:g}px;fill:{colour(fill)}{weight}">{escape(self.say(words))}</text>'
        )

    def lines(self, x: float, y: float, words: Sequence[str], *, step: float = 18, size: float = 13) -> None:
        """Lines of text under one another."""
        for i, line in enumerate(words):
            self.text(x, y + i * step, line, size=size)

    def path(
        self,
        points: Sequence[tuple[float, float]],
        stroke: str = "muted",
        *,
        width: float = 1.2,
        arrow: bool = False,
        dashed: bool = False,
    ) -> None:
        """A line through points, with a head at its end if it is an arrow."""
        where = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<polyline points="{where}"{dash} style="fill:none;stroke:{colour(stroke)};stroke-width:{width:g}"/>'
        )
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
            dx, dy = (x1 - x0) / length, (y1 - y0) / length
            back_x, back_y = x1 - 8 * dx, y1 - 8 * dy
            head = f"{x1:g},{y1:g} {back_x - 4 * dy:g},{back_y + 4 * dx:g} {back_x + 4 * dy:g},{back_y - 4 * dx:g}"
            self.parts.append(f'<polygon points="{head}" style="fill:{colour(stroke)}"/>')

    def render(self) -> str:
        """The finished SVG."""
        title = escape(self.say(self.title))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" xml:lang="{self.say.tag}" '
            f'font-family="{FONTS}">\n<title>{title}</title>\n{style_sheet()}\n'
            f'<rect width="{self.width}" height="{self.height}" rx="10" style="fill:{colour("card")}"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )
