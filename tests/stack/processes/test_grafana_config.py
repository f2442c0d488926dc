import json
import re
from pathlib import Path

import pytest

from loadgen.errors import UserError
from loadgen.settings import Paths
from stack.cpus import CpuPlan
from stack.env_file import settings_with_password
from stack.processes.binaries import Grafana
from stack.processes.grafana_config import HOME_BOARD, grafana_environment, render_grafana
from stack.processes.programs import programs, render_supervisor, stack_environment
from stack.processes.runtime import ProcessRuntime
from tests.grafana.test_provisioning import FOLDER, read
from tests.loadgen.test_settings import settings_of as given_settings

CHECKOUT = Path(__file__).resolve().parents[3]


def given(tmp_path, **environ):
    return given_settings(tmp_path, environ), Paths(tmp_path)


def test_grafana_is_provisioned_as_in_containers(tmp_path):
    files = render_grafana(*given(tmp_path, BAKEOFF_PROMETHEUS_PORT="7002"))
    (source,) = json.loads(files["datasources/prometheus.yaml"])["datasources"]
    (known,) = read(FOLDER / "datasources" / "prometheus.yaml")["datasources"]
    assert source == {**known, "url": "http://127.0.0.1:7002"}
    (provider,) = json.loads(files["dashboards/bakeoff.yaml"])["providers"]
    (known,) = read(FOLDER / "dashboards" / "bakeoff.yaml")["providers"]
    assert provider == {**known, "options": {"path": str(tmp_path / "grafana" / "dashboards")}}


def test_home_is_there_and_nobody_is_anonymous(tmp_path):
    environment = grafana_environment(*given(tmp_path))
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home == tmp_path / HOME_BOARD
    assert (CHECKOUT / HOME_BOARD).is_file()
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_only_grafanas_own_file_holds_the_password(tmp_path):
    settings, paths = given(tmp_path, BAKEOFF_GRAFANA_PASSWORD="pass#word;1")
    files = render_grafana(settings, paths)
    assert files[paths.grafana_config.name] == '[security]\nadmin_password = """pass#word;1"""\n'
    grafana = Grafana(Path("/opt/grafana/bin/grafana"), Path("/opt/grafana"))
    stack = programs(settings, paths, CpuPlan(engine=(0,), traffic=(0,)), None, grafana)
    (program,) = (each for each in stack if each.name == "grafana")
    assert program.argv[-2:] == ("--config", str(paths.grafana_config))
    elsewhere = [json.dumps(stack_environment(settings, paths)), render_supervisor(stack, paths)]
    elsewhere += [text for name, text in files.items() if name != paths.grafana_config.name]
    assert not any("pass#word" in text for text in elsewhere)


@pytest.mark.parametrize("password", ['a"""b', "a\nb"])
def test_a_password_that_its_file_cannot_hold_is_refused(tmp_path, password):
    with pytest.raises(UserError, match="BAKEOFF_GRAFANA_PASSWORD"):
        render_grafana(*given(tmp_path, BAKEOFF_GRAFANA_PASSWORD=password))


def test_a_dollar_in_the_path_is_no_variable(tmp_path):
    settings, paths = given(tmp_path / "a $HOME")
    text = render_grafana(settings, paths)["dashboards/bakeoff.yaml"]
    assert "a $$HOME/grafana/dashboards" in text and not re.search(r"[^$]\$HOME", text)


def test_the_files_are_for_their_owner_only(tmp_path, monkeypatch):
    monkeypatch.delenv("BAKEOFF_GRAFANA_PASSWORD", raising=False)
    settings = settings_with_password(tmp_path)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert len(settings.grafana_password) >= 20
    stack = ProcessRuntime(tmp_path, settings)
    stack._write_grafana_files()
    for path in (stack.paths.grafana_config, stack.paths.grafana / "datasources" / "prometheus.yaml"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert settings.grafana_password in stack.paths.grafana_config.read_text()


def test_a_users_own_file_without_a_password_stops_it(tmp_path, monkeypatch):
    monkeypatch.delenv("BAKEOFF_GRAFANA_PASSWORD", raising=False)
    (tmp_path / ".env").write_text("BAKEOFF_WORKERS=2\n")
    with pytest.raises(UserError, match="sets no password for Grafana"):
        settings_with_password(tmp_path)
