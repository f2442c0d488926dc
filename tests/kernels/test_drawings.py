"""Drawings and plots: well-formed, said in every language, and showing what the emulation says."""

import re
import xml.etree.ElementTree as ET

import pytest

from kernels import page
from kernels.drawings import DRAWINGS
from kernels.measured import Measured
from kernels.plots import PLOTS
from kernels.style import COLOURS, Canvas, colour
from kernels.tables import TABLES
from kernels.words import CHINESE, ENGLISH, LANGUAGES, Language
from tests.kernels.made_up import MEASURED

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = {**DRAWINGS, **{f"plot-{name}": lambda say, draw=draw: draw(MEASURED, say) for name, draw in PLOTS.items()}}


def texts(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.code)
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_well_formed_and_follows_its_readers_colours(name, language):
    svg = PICTURES[name](language)
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title").text
    assert "prefers-color-scheme: dark" in svg
    used = set(re.findall(r"var\(--(\w+)\)", svg))
    assert used <= set(COLOURS)
    assert "card" in used
    assert not re.search(r"#0a0b\w\w", svg), "a placeholder of a colour is left"
    outside = re.sub(r"<style>svg\{.*?</style>", "", svg, flags=re.DOTALL)
    assert not re.findall(r"(?:fill|stroke)\s*[:=]\s*\"?#(?!000000)[0-9a-f]{6}", outside), (
        "a colour that does not follow"
    )


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_stays_within_its_frame(name):
    for language in LANGUAGES:
        root = ET.fromstring(DRAWINGS[name](language))
        width, height = float(root.get("width")), float(root.get("height"))
        for text in root.iter(f"{SVG}text"):
            size = float(re.search(r"font-size:([\d.]+)", text.get("style"))[1])
            wide = sum(1.0 if ord(sign) > 0x2E80 else 0.56 for sign in text.text) * size
            x, anchor = float(text.get("x")), text.get("text-anchor")
            left = x - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            if not text.get("transform"):
                assert left >= 4, text.text
                assert left + wide <= width + 4, text.text
            assert float(text.get("y")) <= height - 6
        for rect in root.iter(f"{SVG}rect"):
            assert float(rect.get("x", 0)) + float(rect.get("width")) <= width


class Missing(dict):
    """A catalogue that notes what it lacks."""

    def __init__(self, texts):
        super().__init__(texts)
        self.lacking = set()

    def get(self, key, default=None):
        if key not in self:
            self.lacking.add(key)
        return super().get(key, default)


def test_every_text_has_its_chinese():
    """Names, formulas and numbers stay as they are: what is left of a text without them must be Chinese."""
    catalogue = Missing(CHINESE.texts)
    say = Language("zh", "zh-CN", "README.zh.md", catalogue)
    for found in (Measured(), MEASURED):
        for draw in DRAWINGS.values():
            draw(say)
        for make in (*PLOTS.values(), *TABLES.values()):
            make(found, say)
    names = r"\d [a-z-]+|FlashAttention-\d|cuDNN|max s|exp|bank|softmax"
    left = {text for text in catalogue.lacking if re.search(r"[a-z]{3}", re.sub(names, "", text))}
    said = set(CHINESE.texts.values())
    assert not {text for text in left if not re.search(r"[\u4e00-\u9fff]", text) and text not in said}


def test_chinese_keeps_the_values_in_a_text():
    for english, chinese in CHINESE.texts.items():
        assert sorted(re.findall(r"\{[^}]*\}", english)) == sorted(re.findall(r"\{[^}]*\}", chinese)), english


def test_the_swizzle_shows_eight_trips_and_one():
    words = texts(DRAWINGS["swizzle"](ENGLISH))
    assert "one read of c2, rows 0 to 7: 8 trips" in words
    assert "one read of c2, rows 0 to 7: one trip" in words


def test_the_online_softmax_ends_where_softmax_does():
    """exp(s - 5) of 1 3 2 5 2 4, times 10 ... 60, by hand."""
    weights = [2.718281828**-x for x in (4, 2, 3, 0, 3, 1)]
    result = sum(w * v for w, v in zip(weights, (10, 20, 30, 40, 50, 60), strict=True)) / sum(weights)
    words = texts(DRAWINGS["online-softmax"](ENGLISH))
    assert f"o / l = {result:.2f}" in words
    assert any(f"times v: {result:.2f}" in line for line in words)


def test_plots_say_that_nothing_was_measured():
    for name in ("speed", "roofline"):
        assert "not measured yet" in PLOTS[name](Measured(), ENGLISH)
    assert "counted: not measured yet" in PLOTS["traffic"](Measured(), ENGLISH)


def test_plots_are_the_same_each_time():
    assert PLOTS["speed"](MEASURED, ENGLISH) == PLOTS["speed"](MEASURED, ENGLISH)


def test_drawings_on_the_page_are_those_of_the_code():
    for path, content in page.drawings().items():
        kept = page.FOLDER / path
        assert kept.is_file(), f"{path} is missing: make attention-page"
        assert kept.read_text(encoding="utf-8") == content, f"{path} is not what the code draws: make attention-page"


def test_text_is_escaped():
    canvas = Canvas(10, 10, "a < b", ENGLISH)
    canvas.text(1, 1, "x & y <b>")
    assert texts(canvas.render()) == ["x & y <b>"]


def test_a_colour_that_there_is_not():
    with pytest.raises(ValueError, match="no colour called 'pink'; there are text, muted"):
        colour("pink")
