import json
import random

import pytest

from loadgen.errors import UserError
from stack import sources
from stack.bundle.manifest import (
    BLOCK,
    MANIFEST,
    OWN,
    Bundle,
    Kept,
    Manifest,
    PackageSet,
    Target,
    cut,
    hash_of,
    read_manifest,
)

HERE = Target.here()
SIZES = {
    "wheels/a.whl": 400_000,
    "wheels/empty.whl": 0,
    "wheels/b.whl": 2_600_000,
    "wheels/c.whl": 1_000_000,
    "wheels/d.whl": 7,
}


def bundle(folder, *, part_mb=0, target=HERE, glibc="", sizes=SIZES):
    """A bundle of two sets; gives what its files hold."""
    held = {}
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        held[name] = random.Random(name).randbytes(size)
        path.write_bytes(held[name])
    files = tuple(Kept(name, size, hash_of(folder / name)) for name, size in sizes.items())
    parts = cut(folder, files, part_mb) if part_mb else ()
    names = list(sizes)
    sets = {OWN: PackageSet("lock", tuple(names[:3])), "llamacpp": PackageSet("other", tuple(names[2:]))}
    Manifest(target, glibc, sets, files, part_mb, parts).write(folder)
    for name in names if parts else ():
        (folder / name).unlink()
    return held


@pytest.mark.parametrize("part_mb", [0, 1, 2, 4, 5], ids="parts of {} MB".format)
def test_each_set_comes_out_as_it_went_in(tmp_path, part_mb):
    folder, there = tmp_path / "bundle", tmp_path / "there"
    held = bundle(folder, part_mb=part_mb)
    if part_mb:
        sizes = [path.stat().st_size for path in sorted(folder.glob("part-*"))]
        assert set(sizes[:-1]) <= {part_mb * 10**6} and 0 < sizes[-1] <= part_mb * 10**6
        assert sum(sizes) == sum(SIZES.values())
    opened = Bundle(folder, there)
    assert BLOCK > 10**6, "a block is cut at a part's end"
    home = opened.supply("llamacpp", "other")
    assert {name: (home / name).read_bytes() for name in list(SIZES)[2:]} == {n: held[n] for n in list(SIZES)[2:]}
    if part_mb:
        assert not (home / "wheels/a.whl").exists(), "only what the set needs is put together"
    home = opened.supply(OWN, "lock")
    assert {name: (home / name).read_bytes() for name in SIZES} == held
    opened.forget()
    assert not there.exists() and (folder / MANIFEST).is_file()


def test_what_was_put_together_before_is_looked_at_and_not_done_again(tmp_path, monkeypatch):
    folder, there = tmp_path / "bundle", tmp_path / "there"
    held = bundle(folder, part_mb=1)
    Bundle(folder, there).supply(OWN, "lock")
    (there / "wheels/b.whl").write_bytes(b"torn")
    joined = []
    again = Bundle(folder, there)
    join = again._join
    monkeypatch.setattr(again, "_join", lambda kept, *rest: joined.append(kept.path) or join(kept, *rest))
    again.supply(OWN, "lock")
    assert joined == ["wheels/b.whl"]
    assert (there / "wheels/b.whl").read_bytes() == held["wheels/b.whl"]


def change(path):
    """One byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_wrong_hash_names_the_file(tmp_path):
    bundle(tmp_path)
    change(tmp_path / "wheels/b.whl")
    with pytest.raises(UserError, match=r"wheels/b\.whl is not what was made \(SHA-256\): copy again$"):
        Bundle(tmp_path, tmp_path / "there").supply(OWN, "lock")


def test_a_wrong_hash_names_the_part(tmp_path):
    bundle(tmp_path, part_mb=1)
    change(tmp_path / "part-002")
    with pytest.raises(UserError, match=r": part-002 is not what was made"):
        Bundle(tmp_path, tmp_path / "there").supply(OWN, "lock")
    assert not list((tmp_path / "there" / "wheels").glob("*.part"))


def test_all_that_is_wrong_is_one_message(tmp_path):
    bundle(tmp_path, part_mb=1, target=Target("3.99", "linux-riscv64"), glibc="2.39")
    (tmp_path / "part-001").unlink()
    (tmp_path / "part-003").unlink()
    (tmp_path / "part-002").write_bytes(b"half")
    with pytest.raises(UserError) as raised:
        Bundle(tmp_path, tmp_path / "there").check(Target("3.11", "linux-x86_64"), glibc="2.31")
    said = str(raised.value).splitlines()
    assert said[0] == f"the bundle in {tmp_path} cannot be used here:"
    assert said[1].startswith("- it is for Python 3.99, and this is 3.11: name that one here with PYTHON=python3.99")
    assert said[2] == "- it is for linux-riscv64, and this is linux-x86_64"
    assert said[3].startswith("- its wheels need glibc 2.39, and this machine has 2.31")
    assert said[4] == "- part-001 and part-003 are missing, of 5 in all"
    assert said[5] == "- part-002 is of another size than was made: copy again"
    assert len(said) == 6


def test_many_missing_files_are_counted(tmp_path):
    bundle(tmp_path, sizes={f"wheels/{number}.whl": 1 for number in range(9)})
    for path in (tmp_path / "wheels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"0\.whl, wheels/1\.whl, .*4\.whl and 4 more are missing, of 9 in all"):
        Bundle(tmp_path, tmp_path / "there").check()


def test_what_the_bundle_does_not_hold(tmp_path):
    bundle(tmp_path)
    opened = Bundle(tmp_path, tmp_path / "there")
    with pytest.raises(UserError, match=r"holds nothing for vllm, only bakeoff, llamacpp: make one with it"):
        opened.supply("vllm", "")
    with pytest.raises(UserError, match=r"of another version of Bakeoff: its packages for bakeoff are others"):
        opened.supply(OWN, "a newer lock")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file or directory: name the folder that `make bundle` made"),
        ("{", "no manifest of a bundle"),
        ("[]", "no manifest of a bundle"),
        ('{"format": 1}', "no manifest of a bundle"),
        ('{"format": 9}', "of format 9, and this Bakeoff reads 1"),
    ],
    ids=["none", "torn", "list", "bare", "newer"],
)
def test_a_manifest_that_is_none(tmp_path, text, said):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "", "a/../../b"])
def test_a_manifest_reaches_nothing_outside_its_folder(tmp_path, path):
    bundle(tmp_path)
    told = json.loads((tmp_path / MANIFEST).read_text())
    told["files"][0]["path"] = path
    (tmp_path / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(UserError, match="is not inside the bundle"):
        read_manifest(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """What was run; each time with the variables added."""
    runs = []
    monkeypatch.setattr(
        sources, "run_logged", lambda command, environment=None, **_: runs.append((command, environment)) or True
    )
    return runs


def test_without_a_bundle_pip_asks_what_it_is_configured_for(tmp_path, monkeypatch, asked):
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    python = tmp_path / "python"
    assert sources.install(python, ("x",), name=OWN, lock=None, what="", log=tmp_path / "log", index="http://i")
    ((command, environment),) = asked
    assert command[-3:] == ["--index-url", "http://i", "x"] and "--no-index" not in command and environment is None


def test_with_a_bundle_no_index_is_asked_and_no_configuration_read(tmp_path, monkeypatch, asked):
    bundle(tmp_path / "bundle")
    monkeypatch.setenv(sources.VARIABLE, str(tmp_path / "bundle"))
    assert sources.install(tmp_path / "p", ("x",), name=OWN, lock=None, what="", log=tmp_path / "log", index="http://i")
    ((command, environment),) = asked
    assert command[3] == "--isolated" and "--no-index" in command and "http://i" not in command
    assert command[command.index("--find-links") + 1] == str(tmp_path / "bundle" / "wheels")
    assert environment == {"PIP_CONFIG_FILE": "/dev/null"}
