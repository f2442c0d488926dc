"""What the host's own configuration says, as build arguments. No engine is needed."""

import requests

from tests.docker.site_settings import mirror_of, pip_settings, wheel_folder_server


def test_pip_settings_prefer_the_environment_then_the_command_then_the_global_section():
    listing = "\n".join(
        [
            "global.index-url='https://global.example/simple'",
            "install.index-url='https://install.example/simple'",
            ":env:.index-url='https://environment.example/simple'",
            "global.trusted-host='a b'",
            "install.find-links='/wheels'",
            "freeze.timeout='10'",
        ]
    )
    assert pip_settings(listing) == {
        "index-url": "https://environment.example/simple",
        "trusted-host": "a b",
        "find-links": "/wheels",
    }


def test_the_mirror_is_that_of_the_releases_main_component():
    listing = (
        "Translations bookworm main http://wrong.example/debian/\n"
        "Packages bookworm-updates main http://updates.example/debian/\n"
        "Packages bookworm contrib http://contrib.example/debian/\n"
        "Packages bookworm main http://right.example/debian/\n"
        "Packages bookworm main http://later.example/debian/\n"
    )
    assert mirror_of(listing, "bookworm") == "http://right.example/debian"
    assert mirror_of(listing, "trixie") is None


def test_a_wheel_folder_is_listed_for_pip_while_it_is_served(tmp_path):
    (tmp_path / "torch-2.0+cpu-py3-none-any.whl").write_bytes(b"wheel")
    with wheel_folder_server(tmp_path) as url:
        assert 'href="torch-2.0%2Bcpu-py3-none-any.whl"' in requests.get(url, timeout=60).text
        assert requests.get(f"{url}torch-2.0%2Bcpu-py3-none-any.whl", timeout=60).content == b"wheel"
