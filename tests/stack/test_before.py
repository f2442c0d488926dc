import pytest

from loadgen.errors import UserError
from stack import before, commands


@pytest.fixture
def plenty(monkeypatch):
    monkeypatch.setattr(before, "memory_gb", lambda: 64.0)
    monkeypatch.setattr(before, "missing_for_compile", list)


@pytest.mark.parametrize(
    ("what", "has_gpu", "free_gb", "is_enough"),
    [
        ("setup", False, 1.0, False),
        ("setup", False, 3.0, True),
        ("demo", False, 3.0, False),
        ("demo", False, 12.0, True),
        ("demo", True, 2.0, False),
        ("demo", True, 3.0, True),
    ],
)
def test_disk_is_looked_at_before_the_first_download(tmp_path, monkeypatch, plenty, what, has_gpu, free_gb, is_enough):
    monkeypatch.setattr(before, "NVIDIA_DRIVER", tmp_path if has_gpu else tmp_path / "no driver")
    usage = type("Usage", (), {"free": free_gb * 1e9})
    monkeypatch.setattr(commands.shutil, "disk_usage", lambda _: usage)
    if is_enough:
        before.look(tmp_path, what)
    else:
        with pytest.raises(UserError, match=f"has {free_gb} GB free: make room"):
            before.look(tmp_path, what)


def test_what_is_set_up_needs_no_room(tmp_path):
    assert before.lacking_gb(tmp_path, ("llamacpp", "vllm")) == 8.0
    for engine in ("llamacpp", "vllm"):
        (tmp_path / ".bakeoff" / "venvs" / engine).mkdir(parents=True)
        (tmp_path / ".bakeoff" / "venvs" / engine / "bakeoff.stamp").touch()
    assert before.lacking_gb(tmp_path, ("llamacpp", "vllm")) == 0.0


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, plenty):
    (tmp_path / ".bakeoff").touch()
    with pytest.raises(UserError, match=r"\.bakeoff: cannot be written: .*Clone into a folder of your own"):
        before.look(tmp_path, "setup")


def test_little_memory_and_no_compiler_are_told(tmp_path):
    assert before.warnings(16.0, []) == []
    memory, compiler = before.warnings(7.8, ["a C++ compiler (g++)"])
    assert "7.8 GB of memory" in memory and "12" in memory
    assert "g++" in compiler and "sudo apt install" in compiler
