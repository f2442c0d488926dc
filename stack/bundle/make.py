"""Make a bundle: fetch all that set-up would fetch, write down what it is, and cut it into parts if asked."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker, default_environment
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from loadgen.errors import UserError
from loadgen.settings import Paths
from stack import setup
from stack.bundle.manifest import (
    MANIFEST,
    OWN,
    PACKAGES,
    PROMETHEUS,
    Kept,
    Manifest,
    PackageSet,
    Progress,
    Target,
    cut,
    hash_of,
    read_manifest,
)
from stack.commands import failure, need_disk, run_logged, say
from stack.processes.binaries import download_prometheus

ENGINES = ("llamacpp", "vllm", setup.VLLM_GPU)
USUAL = ("llamacpp", "vllm")
BATCH = 8
"""Packages that are asked of pip at once: what a batch brought stays when the next is interrupted."""
DISK_GB = {OWN: 0.3, "llamacpp": 0.4, "vllm": 1.0, setup.VLLM_GPU: 6.0, setup.ANNOTATOR: 0.1, PROMETHEUS: 0.1}
INCOMING = "incoming"
DEBIAN = "debian"
_PLATFORM = re.compile(r"linux-(x86_64|aarch64)")
_GLIBC = re.compile(r"manylinux_2_(\d+)_")
_OLD_TAGS = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
_LOCKED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>.*?))?\s*(?=--hash|$)")


@dataclass(frozen=True)
class Wanted:
    """A package of a lock file."""

    name: str
    version: str
    hashes: frozenset[str]
    """SHA-256; empty: not known."""

    @property
    def line(self) -> str:
        """It as pip reads it."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{each}" for each in sorted(self.hashes))])


@dataclass(frozen=True)
class Order:
    """What a bundle is to be."""

    target: Target
    glibc: str = ""
    """Wheels may need no newer one; empty: what pip takes here."""
    engines: tuple[str, ...] = USUAL
    part_mb: int = 0

    @property
    def sets(self) -> tuple[str, ...]:
        """The environments, ours first. llama.cpp's holds the model that vLLM on a CPU serves too."""
        named = {*self.engines, *(("llamacpp",) if "vllm" in self.engines else ())}
        return (OWN, *(name for name in ENGINES if name in named), setup.ANNOTATOR)

    @property
    def is_for_here(self) -> bool:
        """Whether pip's own choice of wheels is the right one."""
        return self.target == Target.here() and not self.glibc


def order(python: str, platform: str, glibc: str, engines: Sequence[str], part_mb: int) -> Order:
    """Check what was asked for; what is empty is as it is here. Raises UserError."""
    here = Target.here()
    target = Target(python or here.python, platform or here.platform)
    if unknown := [name for name in engines if name not in ENGINES]:
        raise UserError(f"unknown engine {unknown[0]}: a bundle can hold {', '.join(ENGINES)}")
    if not re.fullmatch(r"3\.\d+", target.python) or int(target.python[2:]) < 11:
        raise UserError(f"--python {target.python}: give Python's version, 3.11 or newer, such as 3.12")
    if glibc and not re.fullmatch(r"2\.\d+", glibc):
        raise UserError(f"--glibc {glibc}: give a version such as 2.28 (`ldd --version` tells it)")
    asked = Order(target, glibc, tuple(engines) or USUAL, part_mb)
    if not asked.is_for_here and not _PLATFORM.fullmatch(target.platform):
        raise UserError(f"--platform {target.platform}: elsewhere than here there is linux-x86_64 or linux-aarch64")
    if asked.is_for_here or glibc:
        return asked
    return Order(target, "2.28", asked.engines, part_mb)


def locked(text: str, target: Target) -> list[Wanted]:
    """The packages of a lock file that this target installs."""
    found = []
    lines = re.sub(r"\\\n", " ", text).splitlines()
    for line in lines:
        match = _LOCKED.match(line.strip())
        if match and _applies(match["marker"], target):
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            found.append(Wanted(match["name"], match["version"], hashes))
    return found


def _applies(marker: str | None, target: Target) -> bool:
    """Whether a marker holds for any release of the target's Python."""
    if not marker:
        return True
    environment = {str(key): str(value) for key, value in default_environment().items()}
    if target != Target.here():
        machine = target.platform.partition("-")[2]
        environment |= {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": machine,
        }
    releases = (f"{target.python}.0", f"{target.python}.99")
    full = (environment["python_full_version"],) if target == Target.here() else releases
    return any(
        Marker(marker).evaluate({**environment, "python_version": target.python, "python_full_version": release})
        for release in full
    )


def make(checkout: Path, folder: Path, asked: Order) -> Manifest:
    """Make it in a folder, with what an earlier, interrupted call left there. Raises UserError."""
    paths = Paths(checkout)
    locks = {name: checkout / "requirements.lock" if name == OWN else setup.lock_of(paths, name) for name in asked.sets}
    made_of = {name: hash_of(lock) for name, lock in locks.items()}
    if (there := _complete(folder, asked, made_of)) is not None:
        say(f"bundle: {folder} is complete already")
        return there
    # Parts are written beside the files that they are cut from.
    need = sum(DISK_GB[name] for name in (*asked.sets, PROMETHEUS)) * (2 if asked.part_mb else 1)
    need_disk(folder, round(need, 1), "the bundle")
    (folder / MANIFEST).unlink(missing_ok=True)
    for part in folder.glob("part-*"):
        part.unlink()
    log = paths.logs / "bundle.log"
    log.unlink(missing_ok=True)
    fetcher = _Fetcher(folder, asked, log)
    sets = {}
    for name, lock in locks.items():
        wanted = locked(lock.read_text(encoding="utf-8"), asked.target)
        files = fetcher.packages(name, wanted)
        if name == "vllm":
            files = [*files, fetcher.torch()]
        sets[name] = PackageSet(made_of[name], tuple(files))
    if package := fetcher.prometheus():
        sets[PROMETHEUS] = PackageSet("", (package,))
    shutil.rmtree(folder / INCOMING, ignore_errors=True)
    return _seal(folder, asked, sets)


def _complete(folder: Path, asked: Order, made_of: dict[str, str]) -> Manifest | None:
    """The bundle that is there, if it is what is asked for and no file of it is missing."""
    try:
        found = read_manifest(folder)
    except UserError:
        return None
    told = {name: one.made_of for name, one in found.sets.items() if name != PROMETHEUS}
    there = all((folder / each.path).is_file() for each in found.parts or found.files)
    same = (found.target, found.part_mb, told) == (asked.target, asked.part_mb, made_of)
    return found if there and same and (not asked.glibc or _older(found.glibc, asked.glibc)) else None


def _older(glibc: str, limit: str) -> bool:
    return not glibc or int(glibc.partition(".")[2]) <= int(limit.partition(".")[2])


def _seal(folder: Path, asked: Order, sets: dict[str, PackageSet]) -> Manifest:
    """Hash all files, cut them if asked, and write the manifest last: what has one is complete."""
    names = list(dict.fromkeys(path for one in sets.values() for path in one.files))
    sizes = {name: (folder / name).stat().st_size for name in names}
    progress = Progress("hashing", sum(sizes.values()))
    files = tuple(Kept(name, sizes[name], hash_of(folder / name, progress)) for name in names)
    for stray in {*_below(folder / PACKAGES), *_below(folder / DEBIAN)} - {folder / name for name in names}:
        stray.unlink()
    parts: tuple[Kept, ...] = ()
    if asked.part_mb:
        need_disk(folder, sum(sizes.values()) / 1e9, "cutting the bundle into parts")
        parts = cut(folder, files, asked.part_mb)
    manifest = Manifest(asked.target, needed_glibc(names), sets, files, asked.part_mb, parts)
    manifest.write(folder)
    if parts:
        shutil.rmtree(folder / PACKAGES)
        shutil.rmtree(folder / DEBIAN, ignore_errors=True)
    return manifest


def _below(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def needed_glibc(names: Iterable[str]) -> str:
    """The glibc that wheels of these names need at least, such as 2.28; empty where none needs one."""
    newest = 0
    for name in names:
        platforms = Path(name).stem.rpartition("-")[2].split(".")
        versions = [int(found[1]) for tag in platforms if (found := _GLIBC.match(tag))]
        versions += [_OLD_TAGS[old] for tag in platforms if (old := tag.partition("_")[0]) in _OLD_TAGS]
        newest = max(newest, min(versions, default=0))
    return f"2.{newest}" if newest else ""


class _Fetcher:
    """Fetches into a bundle's folder."""

    def __init__(self, folder: Path, asked: Order, log: Path) -> None:
        self.folder, self.asked, self.log = folder, asked, log

    def packages(self, name: str, wanted: Sequence[Wanted]) -> list[str]:
        """Fetch a set's wheels, those that are not there yet; returns all of them, as paths in the bundle."""
        title = "Bakeoff" if name == OWN else setup.TITLES[name]
        there = {each: path for each in wanted if (path := self._find(each)) is not None}
        lacking = [each for each in wanted if each not in there]
        say(f"{title}: {len(wanted)} packages, {len(lacking)} to fetch")
        for batch in _batches(lacking, BATCH):
            self._download(["--require-hashes", "-r", self._requirements(batch)], title, batch[0].name)
            for each in batch:
                if (path := self._find(each)) is None:
                    raise UserError(f"pip brought no wheel of {each.name} {each.version} that the lock file knows")
                there[each] = path
            megabytes = sum((self.folder / path).stat().st_size for path in there.values()) / 1e6
            say(f"  {title}: {len(there)} of {len(wanted)} packages, {megabytes:.0f} MB")
        return sorted(there.values())

    def torch(self) -> str:
        """Fetch torch's CPU build, from where set-up would."""
        here = self.asked.is_for_here
        known = locked(setup.TORCH_LOCK.read_text(encoding="utf-8"), self.asked.target) if here else []
        name, _, version = setup.TORCH.partition("==")
        hashes = known[0].hashes if known and setup.torch_requirement() != (setup.TORCH,) else frozenset[str]()
        wanted = Wanted(name, version, hashes)
        if (path := self._find(wanted)) is None:
            options = list(setup.torch_requirement()) if here else [setup.TORCH]
            say("torch's CPU build, for vLLM: fetching")
            try:
                self._download(options, "torch", name)
            except UserError:
                say("  torch's CPU build is not in pip's configured sources: asking PyTorch's index")
                self._download(["--index-url", setup.TORCH_INDEX, *options], "torch", name)
            path = self._find(wanted)
        if path is None:
            raise UserError(f"pip brought no wheel of {setup.TORCH}")
        return path

    def prometheus(self) -> str:
        """Fetch Debian's package of Prometheus; empty, and said, where that cannot be."""
        if found := sorted((self.folder / DEBIAN).glob("prometheus_*.deb")):
            return f"{DEBIAN}/{found[-1].name}"
        if self.asked.target.platform != Target.here().platform:
            say("Prometheus is left out: its package comes from this machine's apt, which is for another processor")
            return ""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            package = download_prometheus(Path(work))
            if isinstance(package, str):
                say(f"Prometheus is left out: {package}")
                return ""
            (self.folder / DEBIAN).mkdir(exist_ok=True)
            package.replace(self.folder / DEBIAN / package.name)
        return f"{DEBIAN}/{package.name}"

    def _find(self, wanted: Wanted) -> str | None:
        """A package's wheel in the bundle, intact."""
        for path in _below(self.folder / PACKAGES):
            try:
                name, version, _, _ = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                continue
            if (name, str(version)) == (canonicalize_name(wanted.name), wanted.version):
                if self._suits(path) and (not wanted.hashes or hash_of(path) in wanted.hashes):
                    return f"{PACKAGES}/{path.name}"
                path.unlink()
        return None

    def _suits(self, path: Path) -> bool:
        """Whether a wheel is of the target's platform: the folder may have been another target's."""
        machine = self.asked.target.platform.partition("-")[2]
        tags = path.stem.rpartition("-")[2]
        python = path.stem.split("-")[-3]
        version = f"cp{self.asked.target.python.replace('.', '')}"
        abi = path.stem.split("-")[-2]
        return (tags == "any" or machine in tags) and (abi in ("none", "abi3") or version in python)

    def _requirements(self, batch: Sequence[Wanted]) -> str:
        (self.folder / INCOMING).mkdir(exist_ok=True)
        path = self.folder / INCOMING / "requirements.txt"
        path.write_text("".join(f"{each.line}\n" for each in batch), encoding="utf-8")
        return str(path)

    def _download(self, options: Sequence[str], title: str, first: str) -> None:
        """Have pip fetch wheels, and take them into the bundle once they are whole."""
        incoming = self.folder / INCOMING / PACKAGES
        shutil.rmtree(incoming, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        where = ["--only-binary=:all:", "--dest", str(incoming), *self._target_options()]
        if not run_logged([*pip, *where, *options], what=f"fetching {first} and others for {title}", log=self.log):
            raise failure(
                f"Fetching packages for {title}", self.log, "If it is the network, try again: what was fetched stays."
            )
        (self.folder / PACKAGES).mkdir(exist_ok=True)
        for wheel in incoming.iterdir():
            wheel.replace(self.folder / PACKAGES / wheel.name)

    def _target_options(self) -> list[str]:
        """pip's options for another Python or machine."""
        if self.asked.is_for_here:
            return []
        machine = self.asked.target.platform.partition("-")[2]
        newest = int(self.asked.glibc.partition(".")[2])
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
        tags += [f"{old}_{machine}" for old, minor in _OLD_TAGS.items() if minor <= newest]
        options = ["--implementation", "cp", "--python-version", self.asked.target.python]
        return [*options, *(word for tag in [*tags, f"linux_{machine}"] for word in ("--platform", tag))]


def _batches(wanted: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    for first in range(0, len(wanted), size):
        yield wanted[first : first + size]
