"""No tick's label is cut at the edge of a drawing."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from loadgen.report.figures import margins


def axes_of(*, width: float = 3.6, left: float = 0.5):
    figure = Figure(figsize=(width, 2.4))
    return figure.add_axes((left / width, 0.2, 1 - (left + 0.1) / width, 0.7))


def test_short_labels_leave_the_margins_as_they_are():
    axes = axes_of()
    axes.set_xlim(0, 10)
    axes.set_xticks([0, 5])
    axes.set_yticks([0, 1], ["0", "25"])
    assert margins(axes, 0.5, 3.6) == (0.5, 0.1)


@pytest.mark.parametrize("label", ["1,250,000", "16384 → 1024 × 16 shared50"])
def test_a_long_label_of_a_row_has_room(label):
    axes = axes_of()
    axes.set_yticks([0, 1], ["0", label])
    left, _ = margins(axes, 0.5, 3.6)
    assert left > 0.5 and left > len(label) * 0.55 * axes.get_yticklabels()[1].get_fontsize() / 72


def test_the_last_label_below_an_axis_has_room():
    axes = axes_of()
    axes.set_xlim(0, 20000)
    axes.set_xticks([0, 20000], ["0", "20,000"])
    _, right = margins(axes, 0.5, 3.6)
    assert right > 0.15
