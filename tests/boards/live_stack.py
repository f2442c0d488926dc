"""Real processes as a stack has them: engines, exporters, Locust and Prometheus with this repository's rules.

The GPU is a page of an H200 whose counters rise with each scrape. Each process can be killed and started again at the
same port, so that Prometheus sees what it would see in a real stack. One stack serves all tests of a session.
"""

from __future__ import annotations

import contextlib
import http.server
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import requests

from loadgen.distributed.locust_client import LocustClient
from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.metrics.slo import Slo
from loadgen.scenario.cell import Cell
from loadgen.traffic.plan import BlockRequest
from stack.scrape_config import LOOKBACK, prometheus_files, write_prometheus_files

CHECKOUT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 300.0
SIMULATORS = ("sim-vllm", "sim-ksana")
Samples = list[tuple[float, float]]
Labels = tuple[tuple[str, str], ...]


class Page:
    """A page of metrics on a port of its own, that can go away and come back. `text` is called for each scrape."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self.text, self.port = text, 0
        self.start()

    def start(self) -> None:
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = page.text()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Program:
    """A process that listens at `url`, and its log."""

    def __init__(self, command: Sequence[str], url: str, log: Path) -> None:
        self._command, self.url, self._log = command, url, log
        self.start()

    def start(self, *options: str) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
                start_new_session=True,
            )

    def wait(self, path: str) -> None:
        """Until it answers a path with 200."""

        def answers() -> bool:
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            with contextlib.suppress(requests.RequestException):
                return get(self.url + path).status_code == 200
            return False

        wait_for(answers, f"{self.url}{path}", START_LIMIT_S)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)
        self._process.wait(300)


def low_ports(count: int) -> list[int]:
    """Free ports below those that Linux hands out by itself: one stays free while its process is away."""
    found: list[int] = []
    for port in range(random.randrange(20_000, 30_000), 32_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} free ports")


def get(url: str, **parameters: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, params=parameters, timeout=120)


def wait_for(found_by: Callable[[], Any], what: str | Callable[[], str], limit_s: float) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := found_by()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what() if callable(what) else what}"
        time.sleep(0.25)
    return found


class LiveStack:
    """Everything, by name, in `programs`; entered and left as a context.

    Args:
        folder: for logs and data.
        prometheus: its program.
        engines: seats beside the simulators `sim-vllm` and `sim-ksana`, of engines that run already.
        gpu: what the GPU exporter shows.
    """

    def __init__(
        self,
        folder: Path,
        prometheus: Path,
        gpu: Callable[[], bytes],
        *,
        engines: Sequence[Seat] = (),
    ) -> None:
        self.folder, self._prometheus, self._others, self._gpu = folder, prometheus, list(engines), gpu
        self._ports = iter(low_ports(8))
        self.programs: dict[str, Program | Page] = {}
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> LiveStack:
        try:
            self._start()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _start(self) -> None:
        self._python("ksana-exporter", "exporters.ksana")
        pushed_to = f"{self.url('ksana-exporter')}/sim-ksana/v1/metrics"
        self._simulator("sim-vllm", "vllm")
        pushes = ("--metrics-export-url", pushed_to, "--metrics-export-interval-ms", "1000")
        self._simulator("sim-ksana", "ksana", *pushes, "--set", "batching.preemption=swap")
        seats = [
            Seat(name="sim-vllm", kind="vllm", base_url=self.url("sim-vllm"), model="simulated", api="completions"),
            Seat(name="sim-ksana", kind="ksana", base_url=self.url("sim-ksana"), model="simulated", api="chat"),
        ]
        self.seats = [*seats, *self._others]
        watched = [word for seat in self.seats for word in ("--engine", f"{seat.name}={seat.base_url}")]
        self._python("engine-exporter", "exporters.engine", *watched)
        page = Page(self._gpu)
        self.programs["gpu-exporter"] = page
        self._ending.callback(page.kill)
        self.runs = self.folder / "runs"
        self.runs.mkdir()
        self.locust: LocustClient = self._ending.enter_context(
            OwnLocust(self.seats, self.runs, self.folder / "locust.log")
        )
        for name, path in (("ksana-exporter", "/healthz"), ("engine-exporter", "/healthz")):
            self.wait(name, path)
        for name in SIMULATORS:
            self.wait(name, "/health")
        self._start_prometheus(page)

    def _python(self, name: str, module: str, *options: str) -> None:
        port = next(self._ports)
        command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *options]
        self._program(name, command, port)

    def _simulator(self, name: str, personality: str, *options: str) -> None:
        self._python(name, "simulator", "--personality", personality, "--timing", "batching", *options)

    def _program(self, name: str, command: Sequence[str], port: int) -> None:
        program = Program(command, f"http://127.0.0.1:{port}", self.folder / f"{name}.log")
        self._ending.callback(program.kill)
        self.programs[name] = program

    def _start_prometheus(self, gpu: Page) -> None:
        port = next(self._ports)
        files = prometheus_files(
            CHECKOUT,
            self.seats,
            client=self.locust.url.removeprefix("http://"),
            engine_exporter=self._address("engine-exporter"),
            gpu_exporter=f"127.0.0.1:{gpu.port}",
            ksana_exporter=self._address("ksana-exporter"),
            prometheus=f"127.0.0.1:{port}",
        )
        write_prometheus_files(self.folder, files)
        command = [
            str(self._prometheus),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            LOOKBACK,
        ]
        self._program("prometheus", command, port)
        self.wait("prometheus", "/-/ready")

    def url(self, name: str) -> str:
        program = self.programs[name]
        assert isinstance(program, Program)
        return program.url

    def _address(self, name: str) -> str:
        return self.url(name).removeprefix("http://")

    def wait(self, name: str, path: str) -> None:
        program = self.programs[name]
        assert isinstance(program, Program)
        program.wait(path)

    @contextlib.contextmanager
    def without(self, *names: str) -> Iterator[tuple[float, list[float]]]:
        """These are killed, and started again at the end; gives when they were gone, and then when they were back."""
        back: list[float] = []
        for name in names:
            self.programs[name].kill()
        yield time.time(), back
        back.append(time.time())
        for name in names:
            self.programs[name].start()

    @contextlib.contextmanager
    def other(self, gpu: Callable[[], bytes], *options: str) -> Iterator[None]:
        """Another GPU, and simulators with further options."""
        page = self.programs["gpu-exporter"]
        assert isinstance(page, Page)
        before, page.text = page.text, gpu
        self._simulate(*options)
        yield
        page.text = before
        self._simulate()

    def _simulate(self, *options: str) -> None:
        for name in SIMULATORS:
            program = self.programs[name]
            assert isinstance(program, Program)
            program.kill()
            program.start(*options)
        for name in SIMULATORS:
            self.wait(name, "/health")

    def instant(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """Each series' labels, with its value under ``."""
        parameters = {"query": query} if at is None else {"query": query, "time": at}
        answer = get(f"{self.url('prometheus')}/api/v1/query", **parameters).json()
        assert answer["status"] == "success", (query, answer)
        return [{**row["metric"], "": float(row["value"][1])} for row in answer["data"]["result"]]

    def range(self, query: str, start: float, end: float, step: float = 1.0) -> dict[Labels, Samples]:
        """Samples (moment, value) of each series, by its labels."""
        url = f"{self.url('prometheus')}/api/v1/query_range"
        answer = get(url, query=query, start=start, end=end, step=step).json()
        assert answer["status"] == "success", (query, answer)
        return {
            tuple(sorted(row["metric"].items())): [(float(at), float(value)) for at, value in row["values"]]
            for row in answer["data"]["result"]
        }

    def block(self, engine: str, *, run_id: str, rate: float = 0.0, output_tokens: int = 16) -> None:
        """Start a block without an end: four users, or a rate; 64 prompt tokens; an SLO that any machine keeps."""
        self.locust.wait_for_workers(1, START_LIMIT_S)
        cell = Cell(64, output_tokens, 0 if rate else 4, rate)
        self.locust.start_block(
            BlockRequest(
                run_id=run_id,
                scenario="live",
                block=f"{engine}.{cell.id}.r1",
                engine=engine,
                cell=cell,
                requests=None,
                warmup_requests=1,
                seed="1",
                slo=Slo(ttft_ms=86_400_000, tpot_ms=86_400_000),
            )
        )
