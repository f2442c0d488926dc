"""Grafana in containers: it finds its data source, boards and home, and lets nobody in without the password."""

from dotenv import dotenv_values
from ruamel.yaml import YAML

from loadgen.boards.catalogue import BOARDS
from tests.prometheus.conftest import CHECKOUT

FOLDER = CHECKOUT / "grafana" / "provisioning"


def read(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def service():
    return read(CHECKOUT / "compose.yaml")["services"]["grafana"]


def mounts():
    return {each["target"]: each for each in service()["volumes"] if isinstance(each, dict)}


def test_the_boards_are_where_the_provider_looks():
    (provider,) = read(FOLDER / "dashboards" / "bakeoff.yaml")["providers"]
    mount = mounts()[provider["options"]["path"]]
    assert mount["read_only"] and mount["source"] == "grafana/dashboards"
    assert provider["type"] == "file" and provider["disableDeletion"] and not provider["allowUiUpdates"]
    assert mounts()["/etc/grafana/provisioning"]["source"] == "grafana/provisioning"


def test_home_is_the_first_board():
    home = service()["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, _, name = home.rpartition("/")
    assert name == f"{BOARDS[0].uid}.json"
    assert (CHECKOUT / mounts()[folder]["source"] / name).is_file()


def test_the_data_source_has_a_fixed_uid():
    (source,) = read(FOLDER / "datasources" / "prometheus.yaml")["datasources"]
    assert (source["uid"], source["type"], source["isDefault"]) == ("prometheus", "prometheus", True)


def test_nobody_gets_in_without_the_password():
    (file,) = service()["env_file"]
    environment = {**dotenv_values(CHECKOUT / file), **service()["environment"]}
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${BAKEOFF_GRAFANA_PASSWORD:?")
