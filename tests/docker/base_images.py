"""Base images made of Debian's packages alone, for a machine that can pull none: PYTHON_IMAGE and PROMETHEUS_IMAGE.

A debootstrap tree is imported as an image; the other two are built on it. They hold this site's certificate
authorities, as the base images of a site behind a proxy do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
from pathlib import Path

import docker

from tests.docker import host_traces, site_settings
from tests.docker.commands import run, step
from tests.docker.engine import STATE, Engine, is_debian_root

IMAGES = Path(__file__).parent / "images"
PREFIX = "bakeoff-test"
# Base images that Dockerfiles of ours take as a build argument, by the folder they are built from.
BUILT = {"PYTHON_IMAGE": "python", "PROMETHEUS_IMAGE": "prometheus"}
_KEY = "bakeoff.recipe"
_INCLUDE = ("ca-certificates",)


def build_base_images(engine: Engine, state: Path = STATE) -> dict[str, str]:
    """Build what is not there yet. Returns each image by its variable; none, if this user cannot run debootstrap.

    Without these variables, Dockerfiles and compose.yaml take the upstream images.
    Raises EngineError if a download or a build fails.
    """
    if not is_debian_root():
        return {}
    debian = build_debian(engine, state)
    return {variable: build_on_debian(engine, folder, debian) for variable, folder in BUILT.items()}


def build_debian(engine: Engine, state: Path = STATE) -> str:
    """This host's Debian release as an image; its tree is kept in `state` as a tar file. Returns the image's name."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    mirror = site_settings.debian_mirror(codename)
    certificates = site_settings.certificates()
    recipe = json.dumps([codename, mirror, _INCLUDE, [certificate.hex() for certificate in certificates.values()]])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    image = f"{PREFIX}/debian:{codename}"
    if _recipe_of(engine, image) == key:
        return image
    archive = state / f"debian-{key}.tar"
    if not archive.exists():
        with step("debootstrap"):
            _bootstrap(archive, codename, mirror)
    with step("import the Debian image"):
        changes = ('CMD ["bash"]', f"LABEL {_KEY}={key}")
        run(
            ["docker", "import", *(word for change in changes for word in ("--change", change)), archive, image],
            env=engine.environment(),
        )
    return image


def _bootstrap(archive: Path, codename: str, mirror: str) -> None:
    """Write a minimal Debian tree, less what apt downloads again, to a tar file."""
    state = archive.parent
    tree = state / "debian-tree"
    _remove_tree(tree)
    state.mkdir(parents=True, exist_ok=True)
    try:
        packages = ",".join(_INCLUDE)
        run(["debootstrap", "--variant=minbase", f"--include={packages}", codename, tree, mirror])
        for name, certificate in site_settings.certificates().items():
            (tree / site_settings.CERTIFICATES.relative_to("/") / name).write_bytes(certificate)
        run(["chroot", tree, "update-ca-certificates"])
        part = archive.with_suffix(".part")
        omitted = (
            "./var/cache/apt/archives/*",
            "./var/lib/apt/lists/*",
            "./dev/*",
            "./etc/hostname",
            "./etc/resolv.conf",
        )
        run(["tar", "--create", "--file", part, "--directory", tree, *(f"--exclude={path}" for path in omitted), "."])
        part.rename(archive)
    finally:
        _remove_tree(tree)


def _remove_tree(tree: Path) -> None:
    # An interrupted debootstrap leaves its /proc mounted in there.
    for point in reversed(host_traces.mounts((tree,))):
        run(["umount", point])
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(tree)


def _recipe_of(engine: Engine, image: str) -> str | None:
    with contextlib.closing(docker.DockerClient(base_url=engine.host)) as client:
        try:
            labels: dict[str, str] = client.images.get(image).labels
        except docker.errors.ImageNotFound:
            return None
    return labels.get(_KEY)


def build_on_debian(engine: Engine, folder: str, debian: str) -> str:
    """Build `images/<folder>` on a Debian image; the engine's build cache makes this short the next time."""
    image = f"{PREFIX}/{folder}:{debian.rpartition(':')[2]}"
    arguments = {"DEBIAN_IMAGE": debian, **site_settings.proxies()}
    with step(f"build {image}"):
        run(
            [
                *("docker", "build", "--tag", image),
                *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
                IMAGES / folder,
            ],
            env=engine.environment(),
        )
    return image
