"""`bakeoff dashboards`, and the same at the end of a race or a report: a page in the run's folder."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from rich.console import Console

from loadgen.boards.catalogue import BOARDS
from loadgen.boards.page import Page, build_page, covered_by
from loadgen.boards.span import moment_text, parse_duration, parse_moment, run_range
from loadgen.errors import UserError
from loadgen.files import write_file
from loadgen.hosts.stack_file import read_stack
from loadgen.machine import by_make
from loadgen.monitoring.prometheus import Prometheus, PrometheusGone
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import load_manifest

NAME = "dashboards.html"


def write_dashboards(
    checkout: Path,
    runs_dir: Path,
    run: str | None,
    times: tuple[str | None, str | None, str | None],
    url: str | None,
    output: Path | None,
) -> str:
    """Write the page of a run, by default the newest, or of a time range (from, to, last); say so in a line.

    Raises:
        UserError: there is no such run, or as below.
    """
    if any(times):
        if run:
            raise UserError("Give either a run or a time range (--from and --to, or --last), not both.")
        return dashboards_of_range(checkout, *times, url, output or runs_dir / NAME)
    return dashboards_of_run(checkout, RunFolder.find(runs_dir, run), url, output)


def dashboards_of_range(
    checkout: Path, begin: str | None, end: str | None, last: str | None, url: str | None, output: Path
) -> str:
    """Write the page of a time range, and say so in a line.

    Raises:
        UserError: the range makes no sense, Prometheus does not answer or has nothing of it, or the page cannot be
            written.
    """
    now = time.time()
    if last is not None:
        if begin or end:
            raise UserError("--last goes without --from and --to.")
        start, finish = now - parse_duration(last), now
    elif begin is None:
        raise UserError("--to goes with --from.")
    else:
        start, finish = parse_moment(begin, now), min(now, parse_moment(end or "now", now))
    page = _build(start, finish, url or stack_prometheus(checkout), None)
    return _write(output, page, 0)


def dashboards_of_run(checkout: Path, folder: RunFolder, url: str | None, output: Path | None = None) -> str:
    """Write the page of a run, by default into its folder, and say so in a line.

    There, a page that shows more than Prometheus still knows is kept.

    Raises:
        UserError: as `dashboards_of_range`; or a page that was there before is kept.
    """
    path = output or folder.path / NAME
    kept = 0 if output else covered_by(path)
    source = url or stack_prometheus(checkout)
    start, end = run_range(folder)
    try:
        return _write(path, _build(start, end, source, folder), kept)
    except UserError as error:
        raise UserError(f"{error} {path} is kept as it was." if kept else str(error)) from None


def show_dashboards(checkout: Path, folder: RunFolder, url: str, console: Console) -> None:
    """Say in a line where a run's page is; it is written first where it is missing or older than the run.

    Never raises for it: a race or a report does not fail for want of a Prometheus.
    """
    path, manifest = folder.path / NAME, folder.manifest_path
    try:
        if path.exists() and manifest.exists() and path.stat().st_mtime_ns >= manifest.stat().st_mtime_ns:
            line = f"Dashboards: {path}"
        else:
            line = dashboards_of_run(checkout, folder, url)
        console.print(line, soft_wrap=True, highlight=False)
    except UserError as error:
        console.print(f"Dashboards: {error}", style="yellow", soft_wrap=True, highlight=False)


def stack_prometheus(checkout: Path) -> str:
    """The Prometheus of the stack that runs in this checkout. Raises UserError when there is none."""
    try:
        url = read_stack(checkout).urls.get("prometheus")
    except UserError:
        url = None
    if not url:
        raise UserError(f"No Prometheus is known: {_advice()}")
    return url


def _advice() -> str:
    """How to have a Prometheus that can be asked."""
    option = 'ARGS="--prometheus URL"' if by_make() else "--prometheus URL"
    return (
        "start the stack with `make up`, whose Prometheus keeps what it saw for 15 days (where there is none, it says "
        f"how to get one), or name another with {option}."
    )


def _build(start: float, end: float, url: str, folder: RunFolder | None) -> Page:
    manifest = load_manifest(folder.manifest_path) if folder else None
    title = manifest.run_id if manifest else "Time range"
    try:
        page = build_page(BOARDS, Prometheus(url), start, end, title=title, manifest=manifest)
    except PrometheusGone as error:
        raise UserError(f"{error}, so nothing was written: {_advice()}") from None
    if page.covered == 0:
        raise UserError(
            f"Prometheus at {url} has nothing from {moment_text(start)} to {moment_text(end)} UTC, "
            "so nothing was written."
        )
    return page


def _write(path: Path, page: Page, kept: int) -> str:
    if page.covered < kept:
        raise UserError(
            f"Prometheus has only {page.covered / kept:.1%} of what the page that is there shows. "
            "Write the new one elsewhere with --output FILE."
        )
    with contextlib.suppress(OSError):  # what is wrong with the folder, writing the file tells
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page.html)
    stopped = "; Prometheus stopped answering on the way" if page.stopped else ""
    return f"Dashboards: {path} ({page.filled} of {page.panels} panels have data{stopped})"
