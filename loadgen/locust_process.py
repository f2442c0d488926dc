"""A Locust of one's own: a master and workers as child processes, for races without the stack."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from loadgen.errors import UserError
from loadgen.locust_client import LocustClient, LocustGone
from loadgen.seats import ENGINES_VARIABLE, Seat

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PARENT_VARIABLE = "BAKEOFF_EXIT_WITH_PARENT"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0


class OwnLocust:
    """Context manager: starts a master and workers on free ports of 127.0.0.1 and ends them again."""

    def __init__(self, seats: Sequence[Seat], runs_dir: Path, log_file: Path, workers: int = 1) -> None:
        self._seats = seats
        self._runs_dir = runs_dir
        self._log_file = log_file
        self._workers = workers
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LocustClient:
        """Start everything and wait until the workers are connected.

        Raises:
            UserError: Locust did not come up, with the end of its log.
        """
        web_port, bind_port = _free_ports(2)
        environment = {
            **os.environ,
            ENGINES_VARIABLE: json.dumps([seat.model_dump(exclude_none=True) for seat in self._seats]),
            "BAKEOFF_RUNS_DIR": str(self._runs_dir.resolve()),
            PARENT_VARIABLE: "1",
        }
        base = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
        address = ["127.0.0.1", str(bind_port)]
        master = ["--master", "--master-bind-host", address[0], "--master-bind-port", address[1]]
        master += ["--web-host", "127.0.0.1", "--web-port", str(web_port)]
        worker = ["--worker", "--master-host", address[0], "--master-port", address[1]]
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            for arguments in [master, *[worker] * self._workers]:
                # A session of its own: Ctrl-C in the terminal is for the campaign, which then ends Locust in order.
                self._processes.append(
                    subprocess.Popen(
                        base + arguments,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environment,
                        start_new_session=True,
                        cwd=LOCUSTFILE.parents[1],
                    )
                )
        client = LocustClient(f"http://127.0.0.1:{web_port}")
        try:
            self._wait(client)
        except BaseException:
            self._end()
            raise
        return client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process that was started here."""
        self._end()

    def _wait(self, client: LocustClient) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            try:
                client.wait_for_workers(self._workers, 1.0)
                return
            except (LocustGone, UserError):
                time.sleep(0.2)
        tail = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise UserError("Locust did not start. The end of its log:\n  " + "\n  ".join(tail or ["(empty)"]))

    def _end(self) -> None:
        # Workers first: the master must still be there to take in their last records.
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes.clear()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Another process may take one before we do; then Locust says so."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
