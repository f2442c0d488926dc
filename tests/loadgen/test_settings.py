import os
from pathlib import Path

import pytest

from loadgen.errors import UserError
from loadgen.settings import (
    SOCKET_PATH_BYTES,
    Paths,
    load_settings,
    load_settings_leniently,
    misspelt,
    private_folder,
    variables,
)

CHECKOUT = Path(__file__).resolve().parents[2]


def settings_of(checkout, environ):
    """The settings with these variables in place of the environment's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in variables():
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        return load_settings(checkout)


def test_defaults(tmp_path):
    settings = settings_of(tmp_path, {})
    assert settings.ports() == {
        "BAKEOFF_LOCUST_PORT": 8089,
        "BAKEOFF_LOCUST_MASTER_PORT": 5557,
        "BAKEOFF_ENGINE_EXPORTER_PORT": 9101,
        "BAKEOFF_GPU_EXPORTER_PORT": 9102,
        "BAKEOFF_KSANA_EXPORTER_PORT": 9103,
        "BAKEOFF_PROMETHEUS_PORT": 9090,
        "BAKEOFF_GRAFANA_PORT": 3000,
        "BAKEOFF_VLLM_PORT": 8101,
        "BAKEOFF_LLAMACPP_PORT": 8102,
        "BAKEOFF_KSANA_PORT": 8103,
        "BAKEOFF_SGLANG_PORT": 8104,
        "BAKEOFF_VLLM_2_PORT": 8121,
        "BAKEOFF_LLAMACPP_2_PORT": 8122,
        "BAKEOFF_KSANA_2_PORT": 8123,
        "BAKEOFF_SIM_VLLM_PORT": 8111,
        "BAKEOFF_SIM_KSANA_PORT": 8112,
    }
    # The longest prompt of the shipped matrix and its output fit.
    assert settings.context_tokens >= 4096 + 128


def test_the_environment_goes_before_the_file(tmp_path):
    (tmp_path / ".env").write_text(
        "# ports\nexport BAKEOFF_LOCUST_PORT=9001\nBAKEOFF_VLLM_PORT = '9002'\nBAKEOFF_VLLM_EAGER=\n"
    )
    settings = settings_of(tmp_path, {"BAKEOFF_VLLM_PORT": "9003", "BAKEOFF_LLAMACPP_PORT": "", "HOME": "/x"})
    assert (settings.locust_port, settings.vllm_port, settings.llamacpp_port) == (9001, 9003, 8102)
    assert settings.vllm_eager is False
    assert settings_of(tmp_path, {"BAKEOFF_VLLM_EAGER": "1"}).vllm_eager is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BAKEOFF_LOCUST_PROT=1", r"\.env:1: unknown variable BAKEOFF_LOCUST_PROT; did you mean BAKEOFF_LOCUST_PORT\?"),
        ("BAKEOFF_ZZZ=1", r"unknown variable BAKEOFF_ZZZ; known are"),
        ("\nxyz", r"\.env:2: expected NAME=value"),
        ("BAKEOFF_VLLM_PORT=80", r"BAKEOFF_VLLM_PORT='80' \(from .*\.env\): input should be greater than"),
        ("BAKEOFF_VLLM_PORT=http", r"BAKEOFF_VLLM_PORT='http' .*valid integer"),
        ("BAKEOFF_RUNTIME=embedded", r"BAKEOFF_RUNTIME='embedded' \(from .*\.env\): it is called processes now"),
        ("=3", r"\.env:1: expected NAME=value, found '=3'"),
        ("BAKEOFF_WORKERS=0", r"BAKEOFF_WORKERS='0'"),
        ("BAKEOFF_VLLM_PORT=8089", r"BAKEOFF_VLLM_PORT and BAKEOFF_LOCUST_PORT are both 8089"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    (tmp_path / ".env").write_text(text)
    with pytest.raises(UserError, match=message):
        settings_of(tmp_path, {})


def test_a_misspelt_variable_of_the_environment_is_told():
    environ = {"BAKEOFF_LOCUST_PROT": "1", "BAKEOFF_ENGINES_JSON": "[]", "BAKEOFF_ENGINES": "vllm", "LOCUST_PORT": "1"}
    assert misspelt(environ) == ["BAKEOFF_LOCUST_PROT is set, and nothing reads it: did you mean BAKEOFF_LOCUST_PORT?"]


def test_an_empty_value_is_the_default(tmp_path):
    (tmp_path / ".env").write_text("BAKEOFF_VLLM_PORT=\nBAKEOFF_WORKERS=''\n")
    assert settings_of(tmp_path, {}) == settings_of(tmp_path / "nowhere", {})


def test_what_must_work_anyway_goes_on_with_the_defaults(tmp_path, capsys):
    (tmp_path / ".env").write_text("BAKEOFF_VLLM_PORT=http\n")
    assert load_settings_leniently(tmp_path).vllm_port == 8101
    assert "warning: BAKEOFF_VLLM_PORT='http'" in capsys.readouterr().err


def test_a_mistake_in_the_environment_says_so(tmp_path):
    with pytest.raises(UserError, match=r"BAKEOFF_VLLM_PORT='99999' \(from the environment\)"):
        settings_of(tmp_path, {"BAKEOFF_VLLM_PORT": "99999"})


def test_the_example_names_every_variable_with_its_default(tmp_path):
    uncommented = (CHECKOUT / ".env.example").read_text().replace("\n#", "\n")
    lines = [line for line in uncommented.splitlines() if line.partition("=")[0] in variables()]
    example = tmp_path / ".env"
    example.write_text("\n".join(lines))
    assert sorted(line.partition("=")[0] for line in lines) == sorted(variables())
    assert settings_of(tmp_path, {}) == settings_of(tmp_path / "nowhere", {})


def test_the_socket_of_a_deep_checkout_is_short_and_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    shallow, deep, other = Paths(Path("/a")), Paths(Path("/" + "d" * 120)), Paths(Path("/" + "e" * 120))
    assert shallow.socket == Path("/a/.bakeoff/stack/supervisor.sock")
    assert str(deep.socket).startswith(f"/run/user/1/bakeoff-{os.getuid()}-")
    assert len(str(deep.socket)) <= SOCKET_PATH_BYTES
    assert deep.socket != other.socket


def test_a_private_folder_is_private(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True, mode=0o755)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(UserError, match="belongs to someone else"):
        private_folder(link)
