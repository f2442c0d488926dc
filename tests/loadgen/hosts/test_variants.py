"""An engine under several names: which of them is up, and with which block it was started."""

from __future__ import annotations

import pytest

from loadgen.errors import UserError
from loadgen.hosts.variants import Setting, VariantHost


class Host:
    """Two engines that start with whatever is declared."""

    restarts = True

    def __init__(self) -> None:
        self.declared = "before"
        self.up: dict[str, str] = {}

    def start(self, name, on_progress=None, *, alone=True):
        for other in [each for each in self.up if each != name] if alone else []:
            self.stop(other)
        self.up.setdefault(name, self.declared)
        on_progress(f"{name} is starting")

    def stop(self, name):
        self.up.pop(name, None)

    def stop_all(self):
        self.up.clear()

    def is_up(self, name):
        return name in self.up

    def running(self):
        return list(self.up)

    def describe(self, name):
        return {"argv": [self.up.get(name)]}

    def how_it_ended(self, name):
        return f"how {name} ended"

    def log_tail(self, name, lines=20):
        return f"{lines} lines of {name}"


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def variants(host):
    def declare(text):
        host.declared = text

    settings = {"vllm": Setting("vllm", "{1}"), "eager": Setting("vllm", "{2}"), "llamacpp": Setting("llamacpp", "")}
    return VariantHost(host, settings, declare)


def state(variants):
    return {name: variants.is_up(name) for name in ("vllm", "eager", "llamacpp")}


def test_a_variant_is_up_only_while_the_engine_runs_with_its_block(host, variants):
    said: list[str] = []
    assert not any(state(variants).values())
    variants.start("eager", said.append)
    assert host.up == {"vllm": "{2}\n"} and state(variants) == {"vllm": False, "eager": True, "llamacpp": False}
    assert variants.running() == ["eager"]
    variants.start("vllm", said.append)
    assert host.up == {"vllm": "{1}\n"} and variants.running() == ["vllm"] and not variants.is_up("eager")
    variants.stop("eager")
    assert variants.is_up("vllm"), "the engine runs as another variant"
    variants.start("vllm", said.append)
    assert host.up == {"vllm": "{1}\n"}
    variants.stop("vllm")
    assert host.up == {} and not any(state(variants).values())
    assert said == ["eager: vllm is starting", "vllm is starting", "vllm is starting"]
    assert variants.restarts


@pytest.mark.parametrize("name", ["vllm", "eager"])
def test_what_ran_before_has_a_block_that_nobody_knows(host, variants, name):
    host.up["vllm"] = "who knows"
    assert not variants.is_up(name) and variants.running() == []
    variants.start(name)
    assert host.up["vllm"] != "who knows"
    host.up, fresh = {"vllm": "who knows"}, variants
    fresh.stop_all()
    host.up["vllm"] = "who knows"
    fresh.stop(name)
    assert host.up == {}


def test_engines_may_be_up_together_each_with_its_own_block(host, variants):
    variants.start("eager", alone=False)
    variants.start("llamacpp", alone=False)
    assert host.up == {"vllm": "{2}\n", "llamacpp": "\n"}
    assert state(variants) == {"vllm": False, "eager": True, "llamacpp": True}
    variants.start("llamacpp")
    assert host.up == {"llamacpp": "\n"} and not variants.is_up("eager")


def test_what_is_told_of_an_engine_is_told_of_its_variant(host, variants):
    variants.start("eager")
    assert variants.describe("eager") == {"seat": "vllm", "argv": ["{2}\n"]}
    assert variants.how_it_ended("eager") == "how vllm ended" and variants.how_it_ended("vllm") == ""
    assert variants.log_tail("eager", 3) == "3 lines of vllm" and variants.log_tail("vllm", 3) == ""
    with pytest.raises(UserError, match="unknown engine nobody: there are eager, llamacpp, vllm"):
        variants.start("nobody")
