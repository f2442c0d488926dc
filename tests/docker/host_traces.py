"""What a Docker engine changes on its host, and how to take it back: bridges, packet filter, forwarding, mounts.

dockerd leaves all of these behind when it ends. Only what was not there before it started is removed.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.docker.commands import program, run

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CGROUPS = Path("/sys/fs/cgroup")
FILTERS = ("iptables", "ip6tables")
_ENGINES_LINK = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]{7}")
_HAIRPIN = r"-s (?P<address>\S+)/32 -d (?P=address)/32 .*-j MASQUERADE"  # a published port, asked for from inside
_ENGINES_RULE = re.compile(rf"\bDOCKER\b|\bDOCKER-|\b({_ENGINES_LINK.pattern})\b|{_HAIRPIN}")
_CHAIN = re.compile(r"(?:\[\d+:\d+\] *)?:(\S+) (\S+)")


@dataclass(frozen=True)
class HostTraces:
    """The state of the host that an engine may change."""

    links: list[str]
    rules: dict[str, list[str]]  # by filter: each chain with its policy, and each rule, without counters
    forwarding: str
    cgroups: list[str]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> HostTraces:
        return cls(**json.loads(text))


def observe() -> HostTraces:
    """The host as it is now."""
    return HostTraces(
        links=sorted(path.name for path in Path("/sys/class/net").iterdir()),
        rules={name: _rules(_saved(name)) for name in FILTERS if program(f"{name}-save")},
        forwarding=FORWARDING.read_text().strip(),
        cgroups=[str(path) for path in _engine_cgroups()],
    )


def _saved(name: str) -> str:
    return run([f"{name}-save", "-c"])


def _rules(saved: str) -> list[str]:
    """The lines of a saved filter that mean something: no comments, counters, or built-in chains left open."""
    lines, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line and not line.startswith("#") and line != "COMMIT":
            plain = re.sub(r"\s*\[\d+:\d+\]\s*", "", line)
            if not re.fullmatch(r":\S+ ACCEPT", plain):
                lines.append(f"{table} {plain}")
    return lines


def without_engine(saved: str, policies: dict[tuple[str, str], str]) -> str:
    """A saved packet filter less each chain and rule of a Docker engine.

    `policies` gives built-in chains, by table and name, the policy they had; others keep theirs.
    """
    kept, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        if _ENGINES_RULE.search(line) and not line.startswith("#"):
            continue
        chain = _CHAIN.match(line)
        if chain and (table, chain[1]) in policies:
            line = f":{chain[1]} {policies[table, chain[1]]} [0:0]"
        kept.append(line)
    return "\n".join(kept) + "\n"


def restore(before: HostTraces, below: tuple[Path, ...]) -> None:
    """Take back what an engine that has ended left: mounts below its folders, its bridges, rules, forwarding, cgroups.

    Raises EngineError if a command fails.
    """
    for mounted in reversed(mounts(below)):
        run(["umount", mounted])
    for link in sorted(set(observe().links) - set(before.links)):
        if _ENGINES_LINK.fullmatch(link) and Path(f"/sys/class/net/{link}").exists():
            run(["ip", "link", "delete", link])
    for name, rules in before.rules.items():
        if any(_ENGINES_RULE.search(rule) for rule in rules):
            continue  # another engine's, from before: not ours to judge
        now = _saved(name)
        policies = {("filter", "FORWARD"): _policy(rules, "*filter :FORWARD ")}
        cleaned = without_engine(now, policies)
        if _rules(cleaned) != _rules(now):
            run([f"{name}-restore", "-c"], text_in=cleaned)
    if FORWARDING.read_text().strip() != before.forwarding:
        FORWARDING.write_text(before.forwarding)
    for folder in reversed(_cgroup_folders(before)):
        folder.rmdir()


def contained(before: HostTraces) -> set[int]:
    """The ids of processes in cgroups that an engine made since: its containers', a killed engine's too."""
    found: set[int] = set()
    for folder in _cgroup_folders(before):
        found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    return found


def _cgroup_folders(before: HostTraces) -> list[Path]:
    """An engine's cgroups since, each before those in it."""
    tops = [path for path in _engine_cgroups() if str(path) not in before.cgroups]
    return sorted(folder for top in tops for folder in (top, *top.rglob("*")) if folder.is_dir())


def _policy(rules: list[str], start: str) -> str:
    return next((rule.removeprefix(start) for rule in rules if rule.startswith(start)), "ACCEPT")


def mounts(below: tuple[Path, ...]) -> list[Path]:
    """The mount points at or below these folders, in the order in which they were mounted."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # A space in a path is written as an octal escape.
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]))
        if any(point.is_relative_to(folder) for folder in below):
            points.append(point)
    return points


def _engine_cgroups() -> list[Path]:
    """dockerd's cgroups: one per hierarchy in version 1, one in version 2."""
    found = []
    with contextlib.suppress(OSError):
        found = [path for pattern in ("docker", "*/docker") for path in CGROUPS.glob(pattern) if path.is_dir()]
    return sorted(found)


def differences(before: HostTraces, now: HostTraces) -> list[str]:
    """In words: what of an engine's the host has now and did not have before."""
    found = [
        f"network link {link}" for link in sorted(set(now.links) - set(before.links)) if _ENGINES_LINK.fullmatch(link)
    ]
    for name, rules in now.rules.items():
        earlier = before.rules.get(name, [])
        found += [
            f"{name} rule {rule}"
            for rule in rules
            if rule not in earlier and (_ENGINES_RULE.search(rule) or " :FORWARD " in rule)
        ]
    if now.forwarding != before.forwarding:
        found.append(f"ip_forward is {now.forwarding}, was {before.forwarding}")
    found += [f"cgroup {cgroup}" for cgroup in now.cgroups if cgroup not in before.cgroups]
    return found
