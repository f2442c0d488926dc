"""What is kept of a check of answers comes back as it was, messages included."""

from __future__ import annotations

import pytest

from loadgen.errors import UserError
from loadgen.message import Message, say
from loadgen.quality.result import QUALITY_FILE, QualityResult, Share, gravest, load_quality, save_quality


def test_a_result_is_read_back_with_its_messages(tmp_path):
    result = QualityResult(verdict="differ", sentence=say("{a} is not {b}", a="a", b="b"), notes=[say("because")])
    save_quality(result, tmp_path / QUALITY_FILE)
    found = load_quality(tmp_path)
    assert found == result
    assert isinstance(found.sentence, Message) and found.sentence.values == {"a": "a", "b": "b"}


def test_no_file_is_no_result_and_a_broken_one_is_told(tmp_path):
    assert load_quality(tmp_path) is None
    (tmp_path / QUALITY_FILE).write_text('{"verdict": "perhaps"}')
    with pytest.raises(UserError, match=r"quality\.json: not a readable result: verdict"):
        load_quality(tmp_path)
    (tmp_path / QUALITY_FILE).write_text('{"schema_version": 99, "verdict": "same", "sentence": "x"}')
    with pytest.raises(UserError, match="later Bakeoff"):
        load_quality(tmp_path)


def test_the_gravest_verdict_is_that_of_all():
    assert gravest(["same", "unknown", "differ"]) == "differ"
    assert gravest(["differ", "degenerate"]) == "degenerate"
    assert gravest([]) == "unknown"


def test_a_share_has_an_exact_interval():
    share = Share.of(20, 20)
    assert share.share == 1.0
    assert share.ci95 == pytest.approx((0.025 ** (1 / 20), 1.0))
