"""Entry point for Locust: `locust -f loadgen/locustfile.py --master` and `--worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadgen.distributed import form, sockets
from loadgen.distributed.users import StreamingUser

RUNS_VARIABLE = "BAKEOFF_RUNS_DIR"
PARENT_VARIABLE = "BAKEOFF_EXIT_WITH_PARENT"
"""Process id of the campaign that started this process."""
QUIT_LIMIT_S = 10.0

__all__ = ["StreamingUser"]

sockets.install()


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any, **_: Any) -> None:
    form.add_arguments(parser)


@events.init.add_listener
def _start(environment: Any, runner: Any, web_ui: Any = None, **_: Any) -> None:
    # Each process loads its own side only: a worker's memory is a figure of Bakeoff's (tests/loadgen/test_imports.py).
    if isinstance(runner, MasterRunner):
        from loadgen.distributed import web_tab
        from loadgen.distributed.master import Master

        master = Master(environment, Path(os.environ.get(RUNS_VARIABLE, "runs")))
        if web_ui is not None:
            web_tab.install(web_ui, master)
    elif isinstance(runner, WorkerRunner):
        from loadgen.distributed.worker import Worker

        Worker(environment)
    else:
        raise SystemExit("Bakeoff's locustfile runs as --master and --worker; for one process use `bakeoff run`.")
    if parent := os.environ.get(PARENT_VARIABLE):
        gevent.spawn(_end_with_parent, runner, int(parent))


def _end_with_parent(runner: Any, parent: int) -> None:
    """End this process when the campaign that started it was killed, so that nothing is left behind."""
    while os.getppid() == parent:
        gevent.sleep(1.0)
    try:
        with gevent.Timeout(QUIT_LIMIT_S, False):
            runner.quit()
    finally:
        os._exit(1)
