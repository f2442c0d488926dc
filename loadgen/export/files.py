"""Writes a run's blocks in another tool's format, a file each."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from loadgen.errors import UserError
from loadgen.export.llm_d import llm_d_report
from loadgen.export.vllm import vllm_result
from loadgen.files import atomic_write, cannot_be_written, make_folder
from loadgen.runs.folder import BlockData, RunData

Format = Literal["vllm", "llm-d"]


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what a reader of it must know."""

    files: list[Path]
    notes: list[str]


def export_run(run: RunData, form: str, folder: Path, *, detailed: bool = False) -> Exported:
    """Write one file for each complete block into a folder, which is made.

    Raises:
        UserError: there is no complete block, `detailed` does not go with the format, or a file cannot be written.
    """
    if detailed and form != "vllm":
        raise UserError("--detailed goes with --format vllm: a report of llm-d's has no single requests.")
    chosen = [block for block in run.blocks if block.facts.status == "complete" and block.measured and block.cut.window]
    if not chosen:
        raise UserError(f"{run.folder} has no complete block with a measured request: there is nothing to export.")
    files, notes = [], []
    left_out = [block.facts.record_id for block in run.blocks if block not in chosen]
    short = [block for block in chosen if block.lacks]
    chosen = [block for block in chosen if not block.lacks]
    if not chosen:
        raise UserError(f"{run.folder}: records of every complete block are missing: there is nothing to export.")
    if left_out:
        notes.append(f"Left out, because they were not completed: {', '.join(left_out)}.")
    if short:
        each = ", ".join(f"{block.facts.record_id} ({block.lacks})" for block in short)
        notes.append(f"Left out, because measured requests are missing in the records: {each}.")
    limited = [block.facts.record_id for block in chosen if block.facts.client_limited]
    if limited:
        notes.append(f"Limited by the load generator, and marked so: {', '.join(limited)}.")
    try:
        make_folder(folder)
        for block in chosen:
            name = f"{block.facts.engine}.{block.facts.cell}.r{block.facts.repeat}"
            files.append(_write(run, block, form, folder, name, detailed))
    except OSError as error:
        raise cannot_be_written(folder, error) from None
    return Exported(files, notes)


def _write(run: RunData, block: BlockData, form: str, folder: Path, name: str, detailed: bool) -> Path:
    limited = block.facts.client_limited
    if form == "vllm":
        path = folder / f"{name}.json"
        result = vllm_result(run.manifest, block, detailed=detailed, client_limited=limited)
        atomic_write(path, json.dumps(result, allow_nan=False) + "\n")
        return path
    path = folder / f"benchmark_report_v0.2.{name}.yaml"
    _dump(llm_d_report(run.manifest, block, client_limited=limited), path)
    return path


def _dump(document: dict[str, Any], path: Path) -> None:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(document, text)
    atomic_write(path, text.getvalue())
