"""Read an image file by file: what in it must not be in an image that runs on somebody's shared host."""

from __future__ import annotations

import contextlib
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import docker

from tests.docker.engine import Engine

BUILD_TOOLS = {"gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cmake", "ninja", "git", "curl", "wget", "pip"}
SECRET_VARIABLE = re.compile(r"(?i)\b\w*(password|passwd|secret|token|credential|api_?key)\w*=\S")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")


@dataclass(frozen=True)
class Scan:
    """What an image is, and what was found in it, a line each."""

    megabytes: int
    """Size of all layers."""
    user: str
    found: list[str]


def scan(engine: Engine, client: docker.DockerClient, image: str, secrets: Iterable[str] = ()) -> Scan:
    """Look at an image's configuration, its history and each file of it.

    Args:
        engine: where the image is.
        client: connected to it.
        image: its name.
        secrets: texts that must be nowhere.
    """
    told = client.images.get(image)
    user = str(told.attrs["Config"]["User"])
    found = [] if re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user) else [f"user {user or 'root'}"]
    texts = [*(told.attrs["Config"].get("Env") or ()), *(str(layer["CreatedBy"]) for layer in told.history())]
    found += [f"secret in its configuration: {text}" for text in texts if SECRET_VARIABLE.search(text)]
    marks = [secret.encode() for secret in secrets]
    found += [f"secret in its configuration: {text}" for text in texts if any(mark in text.encode() for mark in marks)]
    container = client.containers.create(image)
    try:
        found += _scan_files(engine, container.id, marks)
    finally:
        container.remove()
    return Scan(round(told.attrs["Size"] / 1e6), user, found)


def _scan_files(engine: Engine, container: str, marks: list[bytes]) -> list[str]:
    found = []
    export = ["docker", "export", container]
    with (
        subprocess.Popen(export, stdout=subprocess.PIPE, env=engine.environment()) as process,
        contextlib.closing(tarfile.open(fileobj=process.stdout, mode="r|")) as files,
    ):
        for file in files:
            found += [f"/{file.name}: {fault}" for fault in _faults(files, file, marks)]
    if process.returncode:
        raise RuntimeError(f"docker export of {container} ended with {process.returncode}")
    return found


def _faults(files: tarfile.TarFile, file: tarfile.TarInfo, marks: list[bytes]) -> list[str]:
    path = PurePosixPath("/", file.name)
    faults = []
    if file.isfile() and file.mode & (stat.S_ISUID | stat.S_ISGID):
        faults.append("setuid or setgid")
    if path.parent.name in ("bin", "sbin") and re.sub(r"[-.]?\d[\d.]*$", "", path.name) in BUILD_TOOLS:
        faults.append("a build tool")
    if path.parent.name.endswith("-packages") and path.name == "pip":
        faults.append("a build tool")
    if path.parts[1:2] in (("app",), ("venv",)) and file.uid == 0 and file.mode & stat.S_IWOTH and not file.issym():
        faults.append("writable by all")
    if file.isfile() and (reader := files.extractfile(file)):
        content = reader.read()
        # Libraries bring keys for their own tests.
        own = path.parts[1] in ("app", "venv") and "tests" not in path.parts
        if any(mark in content for mark in marks) or (own and PRIVATE_KEY.search(content)):
            faults.append("a secret")
    return faults
