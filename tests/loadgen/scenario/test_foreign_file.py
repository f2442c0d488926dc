"""Scenario files from someone else: each is refused in one sentence, soon, and runs or opens nothing."""

from __future__ import annotations

import contextlib
import os

import pytest

from loadgen.errors import UserError
from loadgen.scenario.file import load_scenario

OK = "name: x\nquestion: q\nprompt_tokens: [64]\noutput_tokens: [16]\nload: {concurrency: [1]}\nrequests: 5\n"
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
LONG = ",".join(map(str, range(1, 1001)))
TRACE = OK.replace("concurrency: [1]", "trace: {}")
CASES = {
    "python tag": OK + "serving: !!python/object/apply:os.system ['touch PWNED']\n",
    "python tag in question": OK.replace("question: q", "question: !!python/object/new:subprocess.check_output [[id]]"),
    "unknown tag": OK + "serving: !x {a: 1}\n",
    "laughs": LAUGHS + OK,
    "laughs in lengths": LAUGHS.replace("x", "1") + OK.replace("[64]", "*a9"),
    "laughs in question": LAUGHS + OK.replace("question: q", "question: *a9"),
    "laughs in serving": LAUGHS + OK + "serving: *a9\n",
    "laughs in fail_if": LAUGHS + OK + "fail_if: *a9\n",
    "merge keys": "b: &b {<<: *b}\n" + OK,
    "self list": OK.replace("[64]", "&p [64, *p]"),
    "name traversal": OK.replace("name: x", "name: ../../x"),
    "name newline": OK.replace("name: x", 'name: "x\\ny"'),
    "trace of a device": TRACE.replace("{}", "/dev/zero"),
    "trace of a fifo": TRACE.replace("{}", "fifo"),
    "trace of a folder": TRACE.replace("{}", "/"),
    "trace of a linked device": TRACE.replace("{}", "linked"),
    "10,000 digits": OK.replace("requests: 5", "requests: " + "9" * 10_000),
    "hex": OK.replace("requests: 5", "requests: 0x7fffffffffffffff"),
    "long hex": OK.replace("requests: 5", "requests: 0x" + "f" * 9_000),
    "long hex in a list": OK.replace("[64]", "[0x" + "f" * 9_000 + "]"),
    "long hex as a seed": OK + "seed: 0x" + "f" * 9_000 + "\n",
    "infinite margin": OK + "margin: .inf\n",
    "nested": "a: " + "[" * 50_000,
    "20 MB": OK + "# " + "x" * 20_000_000 + "\n",
    "200,000 lengths": OK.replace("[64]", "[" + ",".join(map(str, range(1, 200_001))) + "]"),
    "1e9 cells": OK.replace("[64]", f"[{LONG}]").replace("[16]", f"[{LONG}]").replace("[1]", f"[{LONG}]"),
    "a million cells": OK.replace("[64]", f"[{LONG}]").replace("[16]", f"[{LONG}]"),
    "1e9 repeats": OK + "repeats: 1000000000\n",
    "1e9 users": OK.replace("[1]", "[1000000000]"),
    "tabs": OK + "\tx: 1\n",
    "keys twice": OK + "requests: 6\n",
    "no date": OK + "seed: 2001-99-99\n",
    "thousands of digits": OK + "seed: " + "9" * 6_000 + "\n",
    "a long threshold": OK + "fail_if: ['" + "a" * 50_000 + " > +5%']\n",
    "a threshold of blanks": OK + "fail_if: ['ttft.p95" + " " * 60_000 + "']\n",
    "options in a setting": OK + 'serving: {dtype: "auto --trust-remote-code"}\n',
    "trace of a secret": TRACE.replace("{}", "/etc/shadow"),
    # Of our own: long and odd names, aliases of mappings as keys' values, and a chain of aliases that is deep.
    "a long key": OK + "x" * 60_000 + ": 1\n",
    "a long engine": OK + "engines: [" + "e" * 60_000 + ", b]\n",
    "an engine that is a path": OK + "engines: [../../x, b]\n",
    "laughs of mappings": "m0: &m0 {a: 1, b: 2}\n"
    + "".join(f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}\n" for i in range(1, 25))
    + OK,
    "a deep chain": "c0: &c0 [1]\n" + "".join(f"c{i}: &c{i} [*c{i - 1}]\n" for i in range(1, 200)) + OK,
}


DEEP, MANY = "nested deeper than 30$", "more than 10,000 values$"
BOUNDED = {
    "brackets": ("a: " + "[" * 20_000, DEEP),
    "brackets with values": ("a: " + "[a," * 20_000, DEEP),
    "mappings": ("a: " + "{a: " * 20_000, DEEP),
    "blocks": ("- " * 20_000, DEEP),
    "keys of nothing": ("? " * 20_000, DEEP),
    "indented keys": ("\n".join(" " * depth + "a:" for depth in range(200)) + "\n\t[", DEEP),
    "keys on one line": ("a: {" + "a," * 20_000, MANY),
    "values on one line": ("a: [" + "1," * 20_000, MANY),
    "lines": ("".join(f"k{number}: 1\n" for number in range(10_000)) + "[", MANY),
}


@pytest.mark.parametrize("what", BOUNDED)
def test_it_is_not_read_further_than_to_its_bound(tmp_path, what):
    text, told = BOUNDED[what]  # none of them is YAML at its end
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        load_scenario(str(tmp_path / "s.yaml"))


@pytest.mark.timeout(120)  # some took minutes
@pytest.mark.parametrize("what", CASES)
def test_it_is_refused_in_a_sentence_and_soon(tmp_path, what, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "linked").symlink_to("/dev/zero")
    (tmp_path / "s.yaml").write_text(CASES[what])
    with pytest.raises(UserError) as caught:
        load_scenario(str(tmp_path / "s.yaml"))
    assert len(str(caught.value)) < 10_000
    assert "sys." not in str(caught.value) and "NoneType" not in str(caught.value), "not in Python's words"
    assert "root:" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


def test_what_a_shell_reads_is_text(tmp_path):
    (tmp_path / "s.yaml").write_text("\ufeff" + OK.replace("question: q", "question: ${HOME} $(id) `id`"))
    assert load_scenario(str(tmp_path / "s.yaml")).question == "${HOME} $(id) `id`"


def test_an_alias_that_holds_itself_ends(tmp_path):
    (tmp_path / "s.yaml").write_text(OK + "serving: &s {dtype: *s}\n")
    with contextlib.suppress(UserError):
        assert load_scenario(str(tmp_path / "s.yaml")).serving.dtype is None


@pytest.mark.parametrize("target", ["/dev/zero", "fifo"])
def test_a_scenario_is_a_file(tmp_path, target):
    path = tmp_path / "s.yaml"
    os.mkfifo(path) if target == "fifo" else path.symlink_to(target)
    with pytest.raises(UserError, match="cannot be read"):
        load_scenario(str(path))


def test_a_scenario_may_be_a_link_and_use_aliases(tmp_path):
    (tmp_path / "real.yaml").write_text(OK.replace("[64]", "&l [64]").replace("[16]", "*l"))
    (tmp_path / "s.yaml").symlink_to("real.yaml")
    assert load_scenario(str(tmp_path / "s.yaml")).output_tokens == [64]
