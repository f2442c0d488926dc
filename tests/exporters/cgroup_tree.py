"""Trees of control groups as Linux and the container engines make them, in plain folders."""

from pathlib import Path

MIB = 1 << 20
V2_STAT = "anon 41943040\nfile 104857600\ninactive_anon 0\ninactive_file {}\nactive_file 4096\n"
V1_STAT = "cache 1\ninactive_file 7\ntotal_cache 104857600\ntotal_inactive_file {}\ntotal_active_file 4096\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version2(root: Path, place: str, *, charged: int, unused: int, cpu_us: int) -> Path:
    """A container's group; returns its folder."""
    write(root / "cgroup.controllers", "cpuset cpu io memory pids\n")
    write(root / place / "memory.current", f"{charged}\n")
    write(root / place / "memory.stat", V2_STAT.format(unused))
    write(root / place / "cpu.stat", f"usage_usec {cpu_us}\nuser_usec 1\nsystem_usec 2\nnr_periods 0\n")
    return root / place


def version1(root: Path, place: str, *, charged: int, unused: int, cpu_us: int, cpu: str = "cpu,cpuacct") -> None:
    """A container's groups in the hierarchies of memory and CPU."""
    write(root / "memory" / place / "memory.usage_in_bytes", f"{charged}\n")
    write(root / "memory" / place / "memory.stat", V1_STAT.format(unused))
    write(root / cpu / place / "cpuacct.usage", f"{cpu_us * 1000}\n")
