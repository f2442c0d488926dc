from pathlib import Path

import pytest

from loadgen.errors import UserError
from stack.containers.environment import (
    SERVICE_USER,
    compose_environment,
    service_user,
)
from stack.cpus import CpuPlan
from stack.env_file import PASSWORD, settings_with_password, write_env_file
from stack.gpu import check_gpu_model, served_model
from tests.loadgen.test_settings import settings_of as given_settings


def settings_of(tmp_path, **environ):
    return given_settings(tmp_path, environ)


def test_env_file_is_written_once_and_private(tmp_path):
    path = tmp_path / ".env"
    assert write_env_file(path)
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(given_settings(tmp_path, {}).grafana_password) >= 20
    assert not write_env_file(path)
    assert path.read_text() == first


def test_a_users_own_file_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    path = tmp_path / ".env"
    path.write_text("BAKEOFF_WORKERS=2\n")
    assert not write_env_file(path)
    assert path.read_text() == "BAKEOFF_WORKERS=2\n"
    with pytest.raises(UserError, match=rf"sets no password.*\n{PASSWORD}=\S+"):
        settings_with_password(tmp_path)


def test_two_files_have_two_passwords(tmp_path):
    for name in ("a", "b"):
        write_env_file(tmp_path / name)
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_services_never_run_as_root():
    assert service_user(1000, 1000) == (1000, 1000)
    assert service_user(0, 0) == SERVICE_USER


def test_what_compose_is_given(tmp_path):
    (tmp_path / ".env").write_text("BAKEOFF_LOCUST_PORT=8189\nBAKEOFF_GRAFANA_PASSWORD='a$b'\n")
    settings = settings_of(tmp_path, BAKEOFF_WORKERS="3", BAKEOFF_MODEL="Qwen/Qwen2.5-7B-Instruct")
    found = compose_environment(
        settings,
        tmp_path,
        cpus=CpuPlan(engine=(0, 1, 2), traffic=(3,)),
        user=(1000, 1001),
        extra={"BAKEOFF_ENGINES_JSON": "[]"},
        environ={"PATH": "/bin", "COMPOSE_PROFILES": "gpu", "BAKEOFF_UID": "0"},
    )
    assert found["PATH"] == "/bin"
    assert (found["BAKEOFF_UID"], found["BAKEOFF_GID"]) == ("1000", "1001")
    assert (found["BAKEOFF_ENGINE_CPUS"], found["BAKEOFF_TRAFFIC_CPUS"]) == ("0-2", "3")
    assert (found["BAKEOFF_LOCUST_PORT"], found["BAKEOFF_WORKERS"]) == ("8189", "3")
    assert found["BAKEOFF_GRAFANA_PASSWORD"] == "a$b"
    assert found["BAKEOFF_MODEL_NAME"] == "Qwen2.5-7B-Instruct"
    assert found["BAKEOFF_RUNS_DIR"] == str(tmp_path / "runs")
    assert found["COMPOSE_PROFILES"] == ""
    assert found["COMPOSE_PROJECT_NAME"] == "bakeoff"
    assert "BAKEOFF_GRAFANA_PORT" not in found  # compose.yaml's own default counts


def test_the_models_name(tmp_path):
    assert served_model(settings_of(tmp_path, BAKEOFF_MODEL_DIR="/data/qwen")) == "qwen"
    assert served_model(settings_of(tmp_path, BAKEOFF_MODEL_DIR="/data/qwen", BAKEOFF_MODEL_NAME="q")) == "q"
    assert served_model(settings_of(tmp_path)) == ""


def test_a_gpu_engine_needs_a_model(tmp_path):
    with pytest.raises(UserError, match="no model is named"):
        check_gpu_model(settings_of(tmp_path), "vllm", tmp_path)
    hub = settings_of(tmp_path, BAKEOFF_MODEL="Qwen/Qwen2.5-7B-Instruct")
    check_gpu_model(hub, "vllm", tmp_path)
    with pytest.raises(UserError, match="KsanaLLM serves a folder only"):
        check_gpu_model(hub, "ksana", tmp_path)
    folder = settings_of(tmp_path, BAKEOFF_MODEL_DIR="model")
    with pytest.raises(UserError, match=r"model holds no config\.json"):
        check_gpu_model(folder, "ksana", tmp_path)
    (tmp_path / "model").mkdir()
    Path(tmp_path / "model" / "config.json").write_text("{}")
    check_gpu_model(folder, "ksana", tmp_path)
