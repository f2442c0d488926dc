"""An engine looks the same in every report, and as on the dashboards."""

from __future__ import annotations

import pytest

from loadgen.boards.colours import KNOWN
from loadgen.presentation.style import LOOKS, looks_of


@pytest.mark.parametrize(
    ("engines", "looks"),
    [
        (["vllm", "ksana"], (0, 1)),
        (["ksana", "vllm"], (1, 0)),
        (["llamacpp", "vllm"], (4, 0)),
        (["one", "other"], (0, 1)),
        (["one", "vllm", "other"], (1, 0, 2)),
        (["A vllm", "B ksana"], (0, 1)),
        (["A vllm", "B vllm"], (0, 1)),
        (["A ksana", "B ksana", "vllm"], (1, 2, 0)),
        ([], ()),
    ],
)
def test_a_known_engine_has_its_own_look_and_others_the_first_free_one(
    engines: list[str], looks: tuple[int, ...]
) -> None:
    assert looks_of(engines) == looks


def test_more_engines_than_looks_share_them() -> None:
    many = looks_of([f"e{i}" for i in range(9)])
    assert many == (0, 1, 2, 3, 4, 5, 0, 1, 2)


@pytest.mark.parametrize("engine", sorted(KNOWN))
def test_reports_and_dashboards_show_an_engine_in_one_colour(engine: str) -> None:
    (place,) = looks_of([engine])
    assert (LOOKS[place].light, LOOKS[place].dark) == KNOWN[engine]
    assert LOOKS[looks_of(["stranger", engine])[1]].dark == KNOWN[engine].dark
