"""`bakeoff explain`."""

from __future__ import annotations

import json

from loadgen.cli import options
from loadgen.cli.console import open_console
from loadgen.cli.options import JsonFile, Language, LanguageChoice, RunName, RunsDir
from loadgen.errors import NOT_WHOLE, UserError
from loadgen.files import STDOUT, check_writable, write_result


def explain(
    *,
    run_name: RunName = None,
    runs_dir: RunsDir = None,
    json_file: JsonFile = None,
    lang: Language = LanguageChoice.en,
) -> None:
    """Say which known mechanisms of engines show in a run.

    Preemption, head of line, what a prefix cache had forgotten, chunked prefill lost, queue limits, detokenisation cost
    and others, each with its evidence and the page that explains it. What cannot be told is not told. Exit code: 0
    read, 1 nothing was measured, 2 the run cannot be read.
    """
    from loadgen.explain import findings
    from loadgen.explain.show import show_findings
    from loadgen.explain.words import as_json
    from loadgen.monitoring.engine_samples import SAMPLES_FILE, read_samples
    from loadgen.presentation.language import language_of
    from loadgen.report import nothing_measured
    from loadgen.runs.folder import RunFolder
    from loadgen.runs.resume import readable_scenario

    check_writable(json_file)
    folder = RunFolder.find(runs_dir or options.default_runs_dir(), run_name)
    run = folder.load()
    if not any(block.records for block in run.blocks):
        raise UserError(f"{folder.path}: {nothing_measured(folder, run)}", exit_code=NOT_WHOLE)
    samples = read_samples(folder.path / SAMPLES_FILE)
    found = findings(run, samples, readable_scenario(run.manifest))
    show_findings(found, run.manifest.run_id, language_of(lang.value), open_console(stderr=json_file == STDOUT))
    if json_file is not None:
        told = {"schema_version": 1, "run_id": run.manifest.run_id, "engines": as_json(found)}
        write_result(json_file, json.dumps(told, indent=2, allow_nan=False) + "\n")
