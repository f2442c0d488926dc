"""The CUDA sources: each step has one, they hang together, and they compile where there is a compiler."""

import re

import pytest

from kernels import compiler
from kernels.steps import CUDA_FOLDER, STEPS

SOURCES = sorted(CUDA_FOLDER.glob("*.cu"))
FILES = [*SOURCES, *sorted(CUDA_FOLDER.glob("*.cuh"))]


def test_every_step_has_its_source_and_every_source_its_step():
    assert [step.path for step in STEPS] == SOURCES
    assert [step.number for step in STEPS] == list(range(len(STEPS)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_source_is_whole(file):
    """What can be seen without a compiler: its own headers are there, and its brackets close."""
    text = file.read_text(encoding="utf-8")
    for name in re.findall(r'#include "([^"]+)"', text):
        assert (CUDA_FOLDER / name).is_file(), f"{file.name} includes {name}, which is not there"
    code = re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', "", text, flags=re.DOTALL)
    for opening, closing in ("{}", "()", "[]"):
        assert code.count(opening) == code.count(closing), f"{file.name}: {opening} and {closing} do not match"


@pytest.fixture(scope="module")
def compiled():
    """All sources, compiled quickly and side by side; kept in .bakeoff/kernels until one of them changes."""
    if reason := compiler.missing():
        pytest.skip(reason)
    results = compiler.compile_all(SOURCES, quick=True, nvcc=compiler.find_nvcc())
    return {result.source: result for result in results}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_compiles(compiled, source):
    result = compiled[source.name]
    assert result.ok, result.words


def test_a_source_that_does_not_compile_is_told(tmp_path):
    if reason := compiler.missing():
        pytest.skip(reason)
    broken = tmp_path / "broken.cu"
    broken.write_text("__global__ void f() { nothing_of_that_name(); }\n")
    result = compiler.compile_source(broken, quick=True, nvcc=compiler.find_nvcc())
    assert not result.ok
    assert "nothing_of_that_name" in result.words


def test_without_nvcc_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setattr(compiler, "INSTALLED", tmp_path)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda _: None)
    assert "`make kernels` installs it from wheels" in compiler.missing()
    wheel = tmp_path / "nvidia" / "cu13" / "bin"
    wheel.mkdir(parents=True)
    (wheel / "nvcc").touch()
    assert compiler.find_nvcc() == wheel / "nvcc"
    assert "g++" in compiler.missing()
