"""A Locust of one's own: a master and workers as child processes, for races without the stack."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.distributed.secret import SECRET_VARIABLE, new_secret
from loadgen.endpoints.seats import ENGINES_VARIABLE, Seat
from loadgen.errors import UserError
from loadgen.machine import unused_ports

LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
PARENT_VARIABLE = "BAKEOFF_EXIT_WITH_PARENT"
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0
CHECK_INTERVAL_S = 0.5
MAX_RESTARTS = 10
"""Of all workers together: one that dies again and again is no accident."""


class OwnLocust:
    """Context manager: starts a master and workers on free ports of 127.0.0.1 and ends them again.

    A worker that dies is started anew, as supervisor does it in the stack. A master is not: the block is with it.
    """

    def __init__(
        self, seats: Sequence[Seat], runs_dir: Path, log_file: Path, workers: int = 1, cpus: Sequence[int] = ()
    ) -> None:
        """`cpus`: the cores that its processes stay on; empty for those of this process."""
        self._seats = seats
        self._runs_dir = runs_dir
        self._log_file = log_file
        self._workers = workers
        self._cpus = tuple(cpus)
        self._processes: list[subprocess.Popen[bytes]] = []
        """The master, then the workers."""
        self._command: list[str] = []
        self._log: BinaryIO | None = None
        self._environment: dict[str, str] = {}
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep_workers, name="locust-workers", daemon=True)

    def __enter__(self) -> LocustClient:
        """Start everything and wait until the workers are connected.

        Raises:
            UserError: Locust did not come up, with the end of its log.
        """
        web_port, bind_port = unused_ports(2)
        self._environment = {
            # LOCUST_* would set Locust's own options behind our back.
            **{name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")},
            ENGINES_VARIABLE: json.dumps([seat.model_dump(exclude_none=True) for seat in self._seats]),
            "BAKEOFF_RUNS_DIR": str(self._runs_dir.resolve()),
            PARENT_VARIABLE: str(os.getpid()),
            SECRET_VARIABLE: new_secret(),
        }
        base = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
        address = ["127.0.0.1", str(bind_port)]
        master = ["--master", "--master-bind-host", address[0], "--master-bind-port", address[1]]
        master += ["--web-host", "127.0.0.1", "--web-port", str(web_port)]
        self._command = [*base, "--worker", "--master-host", address[0], "--master-port", address[1]]
        client = LocustClient(f"http://127.0.0.1:{web_port}")
        client.pids = lambda: [process.pid for process in self._processes]
        try:
            try:
                self._log_file.parent.mkdir(parents=True, exist_ok=True)
                # Opened once: the file may be moved while they run.
                self._log = self._log_file.open("ab")
                for command in [base + master, *[self._command] * self._workers]:
                    self._processes.append(self._start(command))
            except OSError as error:
                raise UserError(f"Locust cannot be started: {self._log_file}: {error.strerror or error}") from None
            self._wait(client)
        except BaseException:
            self._end()
            raise
        self._keeper.start()
        return client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process that was started here."""
        self._end()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal is for the campaign, which then ends Locust in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
            cwd=LOCUSTFILE.parents[1],
        )
        if self._cpus:
            with contextlib.suppress(ProcessLookupError):  # it has ended, which is told elsewhere
                os.sched_setaffinity(process.pid, self._cpus)  # before it has any thread but its first
        return process

    def _keep_workers(self) -> None:
        """Start dead workers anew, in a thread of its own."""
        restarts = 0
        while not self._ending.wait(CHECK_INTERVAL_S):
            for number in range(1, len(self._processes)):
                if self._processes[number].poll() is None or restarts >= MAX_RESTARTS or self._ending.is_set():
                    continue
                restarts += 1
                with contextlib.suppress(OSError):  # out of processes or memory: the next round tries again
                    self._processes[number] = self._start(self._command)

    def _wait(self, client: LocustClient) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break  # nothing is started anew yet: who ends at once has a reason
            try:
                client.wait_for_workers(self._workers, 1.0)
                return
            except (LocustGone, UserError):
                time.sleep(0.2)
        tail = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise UserError("Locust did not start. The end of its log:\n  " + "\n  ".join(tail or ["(empty)"]))

    def _end(self) -> None:
        self._ending.set()
        try:
            if self._keeper.ident is not None:
                self._keeper.join()
            # Workers first: the master must still be there to take in their last records.
            _end_in_order(self._processes[1:])
            _end_in_order(self._processes[:1])
        finally:
            # Also on a second Ctrl-C, which means that somebody will not wait.
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if self._log is not None:
                self._log.close()


def _end_in_order(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and wait for them, at most `STOP_LIMIT_S` in all."""
    # A background job of a script is started with SIGINT ignored, and so are its children.
    number = signal.SIGTERM if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else signal.SIGINT
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
    deadline = time.monotonic() + STOP_LIMIT_S
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.1))
