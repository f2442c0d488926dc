from pathlib import Path

import pytest

from stack.containers.pin import pinned_images, with_digests

COMPOSE = (Path(__file__).resolve().parents[3] / "compose.yaml").read_text(encoding="utf-8")


def digest_of(image: str) -> str:
    return "sha256:" + image.encode().hex().ljust(64, "0")[:64]


def test_the_images_of_the_stack():
    upstream = {"PYTHON_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "VLLM_IMAGE", "SGLANG_IMAGE"}
    assert set(pinned_images(COMPOSE)) == upstream


def test_digests_are_added_and_nothing_else_changes():
    pinned = with_digests(COMPOSE, digest_of)
    for variable, image in pinned_images(COMPOSE).items():
        assert f"${{{variable}:-{image}@{digest_of(image)}}}" in pinned
        pinned = pinned.replace(f"@{digest_of(image)}", "")
    assert pinned == COMPOSE


def test_a_digest_that_is_there_is_replaced():
    once = with_digests(COMPOSE, digest_of)
    assert with_digests(once, digest_of) == once
    assert with_digests(once, lambda image: "sha256:" + "f" * 64).count("f" * 64) == len(pinned_images(COMPOSE))


def test_a_registry_that_does_not_answer_changes_nothing():
    def fail(image: str) -> str:
        raise RuntimeError(image)

    with pytest.raises(RuntimeError):
        with_digests(COMPOSE, fail)
