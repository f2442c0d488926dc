import json
import shutil
from pathlib import Path

import pytest

from loadgen.errors import UserError
from stack import setup
from stack.bundle import make as making
from stack.bundle.make import Order, locked, needed_glibc, order
from stack.bundle.manifest import MANIFEST, OWN, PROMETHEUS, Target, read_manifest
from tests.stack.bundle.shop import lock, wheel

LOCK = """\
always==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
backport==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:{a}
arm==3.0 ; platform_machine == 'aarch64' and sys_platform == 'linux' \\
    --hash=sha256:{a}
windows==4.0 ; sys_platform == 'win32' \\
    --hash=sha256:{a}
patch==5.0 ; python_full_version <= '3.11.2' \\
    --hash=sha256:{a}
cpu==6.0+cpu \\
    --hash=sha256:{b}
""".format(a="a" * 64, b="b" * 64)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Target("3.11", "linux-aarch64"), ["always", "backport", "arm", "patch", "cpu"]),
        (Target("3.12", "linux-x86_64"), ["always", "cpu"]),
        (Target("3.13", "linux-aarch64"), ["always", "arm", "cpu"]),
    ],
    ids=["3.11-arm", "3.12-x86", "3.13-arm"],
)
def test_a_lock_is_read_for_the_target(monkeypatch, target, names):
    monkeypatch.setattr(making.Target, "here", classmethod(lambda _: Target("3.99", "linux-x")))
    found = locked(LOCK, target)
    assert [each.name for each in found] == names
    assert found[0].line == f"always==1.0 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}"


def test_the_glibc_that_wheels_need():
    assert needed_glibc(["wheels/a-1-py3-none-any.whl", "debian/prometheus_2_amd64.deb"]) == ""
    both = "wheels/b-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert needed_glibc([both, "wheels/c-1-cp311-cp311-manylinux1_x86_64.whl"]) == "2.17"
    assert needed_glibc([both, "wheels/t-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"]) == "2.28"


@pytest.mark.parametrize(
    ("python", "platform", "glibc", "engines", "said"),
    [
        ("3.10", "", "", [], "3.11 or newer"),
        ("python3", "", "", [], "--python python3"),
        ("", "", "new", [], "--glibc new"),
        ("", "windows-AMD64", "", [], "elsewhere than here"),
        ("", "", "", ["sglang"], "unknown engine sglang: a bundle can hold llamacpp, vllm, vllm-gpu"),
    ],
    ids=["old", "no-version", "glibc", "platform", "engine"],
)
def test_what_cannot_be_made_is_refused(python, platform, glibc, engines, said):
    with pytest.raises(UserError, match=said):
        order(python, platform, glibc, engines, 0)


def test_what_a_bundle_holds_by_its_engines():
    assert order("", "", "", ["vllm"], 0).sets == (OWN, "llamacpp", "vllm", setup.ANNOTATOR)
    assert order("", "", "", [setup.VLLM_GPU], 0).sets == (OWN, setup.VLLM_GPU, setup.ANNOTATOR)
    other = order("3.99", "linux-aarch64", "", [], 58)
    assert other.glibc == "2.28" and other.part_mb == 58 and not other.is_for_here
    assert order("", "", "", [], 0).is_for_here


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout of small lock files, and a pip that takes wheels from a folder; gives what it was asked for."""
    shop, checkout, asked = tmp_path / "shop", tmp_path / "checkout", []
    own = [wheel(shop, f"own{number}") for number in range(making.BATCH + 2)]
    lock(checkout / "requirements.lock", *own)
    lock(checkout / "stack/engines/llamacpp/requirements.lock", wheel(shop, "engine"))
    lock(checkout / "grafana/annotator/requirements.lock", own[0])

    def pip(command, **_):
        requirements = Path(command[command.index("-r") + 1])
        names = [line.partition("==")[0] for line in requirements.read_text().splitlines()]
        asked.append(names)
        to = Path(command[command.index("--dest") + 1])
        to.mkdir(parents=True)
        for name in names:
            shutil.copy(next(shop.glob(f"{name}-*")), to)
        return True

    monkeypatch.setattr(making, "run_logged", pip)
    monkeypatch.setattr(making, "download_prometheus", lambda folder: package(folder, "prometheus_2.1_amd64.deb"))
    return tmp_path, checkout, asked


def package(folder, name):
    (folder / name).write_bytes(b"a package")
    return folder / name


ASKED = Order(Target.here(), engines=("llamacpp",))


def test_a_bundle_holds_each_file_once_and_is_made_once(place, capsys):
    tmp_path, checkout, asked = place
    made = making.make(checkout, tmp_path / "bundle", ASKED)
    assert made == read_manifest(tmp_path / "bundle")
    assert list(made.sets) == [OWN, "llamacpp", setup.ANNOTATOR, PROMETHEUS]
    assert len({each.path for each in made.files}) == len(made.files) == making.BATCH + 4
    assert [len(names) for names in asked] == [making.BATCH, 2, 1], "what one set brought another does not fetch"
    assert all((tmp_path / "bundle" / each.path).is_file() for each in made.files)
    assert str(tmp_path) not in (tmp_path / "bundle" / MANIFEST).read_text(), "nothing of this machine is in it"
    assert making.make(checkout, tmp_path / "bundle", ASKED) == made
    assert len(asked) == 3 and "is complete already" in capsys.readouterr().out


def test_an_interrupted_bundle_goes_on_where_it_was(place, monkeypatch):
    tmp_path, checkout, asked = place
    folder, pip = tmp_path / "bundle", making.run_logged

    def interrupted(command, **words):
        if asked:
            raise KeyboardInterrupt
        return pip(command, **words)

    monkeypatch.setattr(making, "run_logged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        making.make(checkout, folder, ASKED)
    assert not (folder / MANIFEST).exists(), "half a bundle is none"
    monkeypatch.setattr(making, "run_logged", pip)
    (folder / "wheels" / "own3-1.0-py3-none-any.whl").write_bytes(b"torn")
    asked.clear()
    making.make(checkout, folder, ASKED)
    assert asked == [["own3", f"own{making.BATCH}", f"own{making.BATCH + 1}"], ["engine"]]


def test_parts_replace_the_files_and_another_order_replaces_parts(place):
    tmp_path, checkout, _ = place
    folder = tmp_path / "bundle"
    made = making.make(checkout, folder, Order(Target.here(), engines=("llamacpp",), part_mb=1))
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "part-001"]
    assert [each.path for each in made.parts] == ["part-001"]
    lock(checkout / "requirements.lock", wheel(tmp_path / "shop", "newer"))
    made = making.make(checkout, folder, ASKED)
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "debian", "wheels"]
    assert "wheels/newer-1.0-py3-none-any.whl" in made.sets[OWN].files


def test_a_folder_of_another_target_leaves_no_file(place):
    tmp_path, checkout, _ = place
    stray = tmp_path / "bundle" / "wheels" / "gone-1.0-py3-none-any.whl"
    wheel(stray.parent, "gone")
    making.make(checkout, tmp_path / "bundle", ASKED)
    assert not stray.exists()


def test_without_apt_prometheus_is_left_out_and_said(place, monkeypatch, capsys):
    tmp_path, checkout, _ = place
    monkeypatch.setattr(making, "download_prometheus", lambda _: "there is no apt-get here")
    made = making.make(checkout, tmp_path / "bundle", ASKED)
    assert PROMETHEUS not in made.sets
    assert "Prometheus is left out: there is no apt-get here" in capsys.readouterr().out


def test_disk_is_looked_at_first(place, monkeypatch):
    tmp_path, checkout, asked = place
    monkeypatch.setattr("stack.commands.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1e8}))
    with pytest.raises(UserError, match=r"the bundle needs .* GB of disk"):
        making.make(checkout, tmp_path / "bundle", ASKED)
    assert not asked


def test_pip_is_told_of_another_target(place, monkeypatch):
    tmp_path, checkout, _ = place
    commands, pip = [], making.run_logged
    monkeypatch.setattr(
        making, "run_logged", lambda command, **words: commands.append(command) or pip(command, **words)
    )
    monkeypatch.setattr(making, "download_prometheus", lambda _: pytest.fail("apt is this machine's"))
    made = making.make(checkout, tmp_path / "bundle", order("3.12", "linux-aarch64", "2.31", ["llamacpp"], 0))
    words = " ".join(commands[0])
    assert "--python-version 3.12" in words and "--platform manylinux_2_31_aarch64" in words
    assert "manylinux_2_32" not in words and "--platform manylinux2014_aarch64" in words
    assert json.loads((tmp_path / "bundle" / MANIFEST).read_text())["target"] == {
        "python": "3.12",
        "platform": "linux-aarch64",
    }
    assert PROMETHEUS not in made.sets
