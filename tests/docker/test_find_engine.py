"""Which engine the tests take, and when there is none to be had. No engine is needed."""

import os
import sys

import pytest

from tests.docker import engine
from tests.docker.commands import SYSTEM_PATH, EngineError, NoEngineError, run
from tests.docker.local_engine import LocalEngine


def test_a_docker_host_that_does_not_answer_is_not_replaced_by_another(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(NoEngineError, match=r"DOCKER_HOST=unix:///nowhere/docker\.sock: no Docker"):
        engine.find_engine(LocalEngine(tmp_path))


def test_only_root_has_an_engine_installed(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoEngineError, match="only root on Debian"):
        engine.require_debian_root()


def test_compose_1_and_programs_that_are_not_there_are_passed_over(tmp_path, monkeypatch):
    for name, version in (("old", "1.29.2"), ("new", "v2.30.1")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(
        engine, "COMPOSE_COMMANDS", (("absent-compose",), (str(tmp_path / "old"),), (str(tmp_path / "new"),))
    )
    assert engine.find_compose(tmp_path) == (str(tmp_path / "new"),)


def test_a_compose_of_its_own_is_found_first_and_one_on_path_adds_no_folder():
    own = engine.Engine("unix:///x", ("/somewhere/bin/docker-compose",)).environment()["PATH"]
    assert own.startswith("/somewhere/bin" + os.pathsep)
    assert engine.Engine("unix:///x", ("docker-compose",)).environment()["PATH"] == SYSTEM_PATH


def test_sockets_have_short_paths_and_checkouts_folders_of_their_own(tmp_path):
    deep = tmp_path / ("d" * 100) / "state"
    assert len(LocalEngine(deep).host.removeprefix("unix://")) < 60
    assert LocalEngine(deep).folder != LocalEngine(tmp_path).folder


def test_a_failed_commands_last_lines_are_told():
    script = "import sys; print('first'); print('why it failed', file=sys.stderr); sys.exit(3)"
    with pytest.raises(EngineError, match=r"exit status 3:\nfirst\nwhy it failed"):
        run([sys.executable, "-c", script])
    with pytest.raises(EngineError, match="cannot run no-such-program"):
        run(["no-such-program"])
