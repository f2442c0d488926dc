"""This host's way to the package registries, as build arguments: a build sees none of the host's configuration.

Nothing of it is in the repository; it is read where the tests run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.docker.commands import EngineError, run

DEBIAN_MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = Path("/usr/local/share/ca-certificates")  # where Debian keeps a site's own authorities
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def pip_settings(listing: str) -> dict[str, str]:
    """Settings by name from what `pip config list` prints, the environment's before `install`'s before `global`'s."""
    found: dict[str, tuple[int, str]] = {}
    order = (":env:", "install", "global")
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in order:
            rank = order.index(section)
            if name.lstrip(".") not in found or rank < found[name.lstrip(".")][0]:
                found[name.lstrip(".")] = (rank, value.strip().strip("'\""))
    return {name: value for name, (_, value) in found.items()}


def _pip() -> dict[str, str]:
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return pip_settings(result.stdout.replace("\\n", " ")) if result.returncode == 0 else {}


def build_arguments() -> dict[str, str]:
    """PIP_INDEX_URL and its like, and proxies, as this host has them; empty on a host with neither.

    Folders of this host are left out: `wheel_folder_server` is for these.
    """
    settings = _pip()
    arguments = {}
    for name in _PIP_SETTINGS:
        reachable = [word for word in settings.get(name, "").split() if name == "trusted-host" or _is_remote(word)]
        if reachable:
            arguments[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(reachable)
    links = [word for word in settings.get("find-links", "").split() if _is_remote(word)]
    if links:
        arguments["PIP_FIND_LINKS"] = " ".join(links)
    return {**arguments, **proxies()}


def proxies() -> dict[str, str]:
    """The proxies of this process' environment; Docker knows these build arguments without an ARG line."""
    values = {name: os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES}
    return {name: value for name, value in values.items() if value}


def _is_remote(word: str) -> bool:
    return urlsplit(word).scheme in ("http", "https")


def wheel_folders() -> list[Path]:
    """The folders of this host in which pip looks for wheels (`find-links`)."""
    words = [word for word in _pip().get("find-links", "").split() if not _is_remote(word)]
    return [folder for word in words if (folder := Path(word.removeprefix("file://")).expanduser()).is_dir()]


@contextlib.contextmanager
def wheel_folder_server(folder: Path) -> Iterator[str]:
    """Serve a folder of wheels on 127.0.0.1 for the duration. Yields its URL, for PIP_FIND_LINKS.

    A build reaches it with `network: host` only.
    """

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def debian_mirror(codename: str) -> str:
    """The mirror from which apt gets this release here, else Debian's own."""
    try:
        listing = run(["apt-get", "indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)"])
    except EngineError:
        return DEBIAN_MIRROR
    return mirror_of(listing, codename) or DEBIAN_MIRROR


def mirror_of(listing: str, codename: str) -> str | None:
    """The first mirror of a release's main component among apt's targets (creator, codename, component, URL a line)."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 4 and words[:3] == ["Packages", codename, "main"]:
            return words[3].rstrip("/")
    return None


def certificates(folder: Path = CERTIFICATES) -> Mapping[str, bytes]:
    """The certificates of this site's own authorities, by file name: images that reach the registries need them too."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.crt"))}
