"""The report of a run: `report.html`, `report.md` and `summary.json`, all from the run's folder and Prometheus."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.monitoring.energy import engine_energy
from loadgen.monitoring.engine_samples import SAMPLES_FILE, read_samples
from loadgen.monitoring.memory import engine_memory
from loadgen.presentation.language import ENGLISH, language_of
from loadgen.quality.result import load_quality
from loadgen.report.data import ReportData, build_report_data
from loadgen.report.summary import write_summary
from loadgen.report.table import terminal_table
from loadgen.runs.folder import RunData, RunFolder
from loadgen.runs.parquet import write_parquet

__all__ = ["ReportData", "ReportPaths", "nothing_measured", "report_data", "terminal_table", "write_report"]


@dataclasses.dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report was written, and what it shows."""

    html: Path
    markdown: Path
    summary: Path
    data: ReportData


def nothing_measured(folder: RunFolder, data: ReportData | RunData) -> str:
    """What is missing in a run without one request, and what to do."""
    if data.blocks:
        files = f"{folder.records_path.name} and {folder.parquet_path.name}"
        missing = (
            f"its blocks have no request record, as if {files} were lost or empty. Copy them here from where it ran"
        )
    elif data.manifest.status == "running":
        return "nothing was measured yet: no block has begun. Try again later, or see what the race says."
    else:
        missing = "no block was ever started; its messages say why. Mend that"
    return f"nothing was measured: {missing}, or race again."


def report_data(folder: RunFolder, *, prometheus_url: str | None) -> ReportData:
    """Read a run folder and work out what its report shows. Writes at most the snapshot of Prometheus' answer.

    Raises:
        UserError: the folder's manifest or records cannot be read.
    """
    return _report_data(folder, folder.load(), prometheus_url)


def write_report(
    folder: RunFolder,
    *,
    prometheus_url: str | None,
    language: str = "en",
    model_config: Mapping[str, Any] | None = None,
    gpu_hour: float | None = None,
) -> ReportPaths:
    """Write the report of a run into its folder; also `requests.parquet` when it is missing or out of date.

    A language other than English has its code in the files' names (`report.zh.html`); `summary.json` is always English.

    Args:
        folder: the run; it may be partial, still running, or without any record.
        prometheus_url: where the engines' memory can be asked for; without it, or when it does not answer, the
            snapshot in the folder is used, and failing that the report says what is missing.
        language: `en` or `zh`.
        model_config: as `loadgen.analysis.attention.read_config` gives it; without it, that of the launch records.
        gpu_hour: what an hour of one GPU costs, over the scenario's price.

    Raises:
        UserError: the folder's manifest or records cannot be read, the report cannot be written, there is none in
            this language, or `gpu_hour` is no price.
    """
    # Here, because a race shows a report's table only, and need not wait until what draws is loaded.
    from loadgen.report.html import write_html
    from loadgen.report.markdown import write_markdown

    told = language_of(language)
    run = folder.load()
    if _parquet_is_stale(folder):
        write_parquet(folder, run)
    data = _report_data(folder, run, prometheus_url, model_config, gpu_hour)
    name = "report" if told is ENGLISH else f"report.{told.code}"
    paths = ReportPaths(folder.path / f"{name}.html", folder.path / f"{name}.md", folder.path / "summary.json", data)
    try:
        write_summary(data, paths.summary)
        write_markdown(data, paths.markdown, told)
        write_html(data, paths.html, told)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{folder.path}: the report cannot be written: {reason}. Free some space or mend the folder's permissions, "
            f"then run `{folder.report_command}` again; the records are safe."
        ) from None
    return paths


def _report_data(
    folder: RunFolder,
    run: RunData,
    prometheus_url: str | None,
    model_config: Mapping[str, Any] | None = None,
    gpu_hour: float | None = None,
) -> ReportData:
    samples = read_samples(folder.path / SAMPLES_FILE)
    energy = engine_energy(folder.path, run, prometheus_url, samples)
    memory = engine_memory(folder.path, run.manifest, prometheus_url)
    quality = load_quality(folder.path)
    return build_report_data(
        run, memory, energy, samples=samples, model_config=model_config, quality=quality, gpu_hour=gpu_hour
    )


def _parquet_is_stale(folder: RunFolder) -> bool:
    if not folder.records_path.exists():
        return False  # it may be all there is of the records
    try:
        made = folder.parquet_path.stat().st_mtime_ns
        return any(p.stat().st_mtime_ns > made for p in (folder.records_path, folder.manifest_path) if p.exists())
    except OSError:
        return True
