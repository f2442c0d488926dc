"""The loop: one thread, one epoll, one heap of due times.

Between two due times it sleeps in the kernel until `spin_us` before the next one and then polls without sleeping, so
that a write starts within microseconds of its due time. Writes go before reads; at most one read is served between
two looks at the heap. Garbage is collected only while no stream is open.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable

import httptools

from simulator.config import Config
from simulator.engine import Engine
from simulator.errors import SimulatorError
from simulator.http import SO_TIMESTAMPNS, Connection, error_body, response
from simulator.pusher import KsanaFeed
from simulator.routes import Routes
from simulator.stream import Observer, Stream
from simulator.truth import TruthLog
from simulator.vllm_metrics import VllmMetrics

LONGEST_SLEEP_NS = 100_000_000
WRITES_BETWEEN_READS = 256
IDLE_COLLECT_NS = 5_000_000_000
ACCOUNT_NS = 60_000
FEED_FLUSH_NS = 100_000_000
Timer = Callable[[int], int]


class Server:
    """The whole simulator. `run` serves until `stop` is called, from a signal handler or another thread."""

    def __init__(self, cfg: Config) -> None:
        """Bind. Raises SimulatorError: the address cannot be had, or this is not Linux."""
        if not sys.platform.startswith("linux"):
            raise SimulatorError("the simulator needs Linux: epoll and the kernel's time stamps")
        self.cfg = cfg
        self.log = TruthLog(round(cfg.lag_limit_ms * 1e6), cfg.truth_max_events)
        self._epoll = select.epoll()
        self._listener = self._listen(cfg)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._heap: list[tuple[int, int, Stream | Timer]] = []
        self._order = 0
        self._stopping = False
        self._feed: KsanaFeed | None = None
        self._flushed = 0
        metrics: VllmMetrics | None = None
        observer: Observer
        if cfg.personality == "ksana":
            observer = self._feed = KsanaFeed(cfg.metrics_export_url, cfg.metrics_export_interval_ms, cfg.cpu)
        else:
            observer = metrics = VllmMetrics(cfg.model, cfg.batching.block_tokens, cfg.batching.kv_blocks)
            metrics.batching = cfg.timing == "batching"
        self.engine = Engine(cfg, self.log, observer, arm=self._arm, at=self._at)
        self._routes = Routes(cfg, self.engine, self.log, metrics)

    def _listen(self, cfg: Config) -> socket.socket:
        try:
            family = socket.AF_INET6 if ":" in cfg.host else socket.AF_INET
            listener = socket.create_server((cfg.host, cfg.port), family=family, backlog=4096)
        except OSError as error:
            raise SimulatorError(f"{cfg.host}:{cfg.port} cannot be listened on ({error.strerror or error})") from None
        listener.setblocking(False)
        # Inherited by what it accepts, so that a request that comes with the connection is stamped too.
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return listener

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """End `run` within a tenth of a second."""
        self._stopping = True

    def claim_core(self) -> None:
        """Pin the process and raise its priority, as configured; allow all the sockets it may have.

        Raises SimulatorError: the core or the priority is refused.
        """
        if self.cfg.cpu is not None:
            try:
                os.sched_setaffinity(0, {self.cfg.cpu})
            except OSError:
                cpus = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
                raise SimulatorError(f"cpu {self.cfg.cpu} cannot be used; this process may use {cpus}") from None
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if self.cfg.realtime:
            try:
                policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(0, policy, os.sched_param(10))
            except OSError:
                raise SimulatorError(
                    "realtime: this user may not use SCHED_FIFO (needs root or CAP_SYS_NICE)"
                ) from None

    def run(self) -> None:
        """Serve until stopped, then close all connections."""
        self.claim_core()
        self.engine.warm_up()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop()
        finally:
            gc.enable()
            for conn in list(self._connections.values()):
                self._drop(conn)
            self.engine.account(most=-1)
            self._listener.close()
            self._epoll.close()
            if self._feed is not None:
                self._feed.close()

    def _loop(self) -> None:
        clock, heap, poll = time.monotonic_ns, self._heap, self._epoll.poll
        epoll_fd = self._epoll.fileno()
        spin = round(self.cfg.spin_us * 1000)
        collected = 0
        while not self._stopping:
            self._write_due()
            now = clock()
            wait = heap[0][0] - now if heap else LONGEST_SLEEP_NS
            if wait > ACCOUNT_NS and self.engine.behind:
                self.engine.account()
                continue
            if wait <= spin:
                ready = poll(0, 1)
            elif wait < spin + 2_000_000:
                # epoll's own timeout counts in whole milliseconds.
                select.select([epoll_fd], [], [], (wait - spin) / 1e9)
                ready = poll(0, 1)
            else:
                if not self.engine.open_streams and now - collected > IDLE_COLLECT_NS:
                    # What survives will for long: frozen, it does not cost the next collection anything.
                    gc.collect()
                    gc.freeze()
                    collected = now
                ready = poll((min(wait, LONGEST_SLEEP_NS) - spin) // 1_000_000 / 1000, 1)
            if self._feed is not None and now - self._flushed > FEED_FLUSH_NS:
                self._feed.flush()
                self._flushed = now
            for fd, mask in ready:
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(self._connections[fd], mask)

    def _write_due(self) -> None:
        clock, heap, pop = time.monotonic_ns, self._heap, heapq.heappop
        for _ in range(WRITES_BETWEEN_READS):
            if not heap:
                return
            now = clock()
            if heap[0][0] > now:
                return
            due, _, task = pop(heap)
            if type(task) is Stream:
                following = task.fire(now)
                if following:
                    self._order += 1
                    heapq.heappush(heap, (following, self._order, task))
                else:
                    task.armed = False
                    if task.over:
                        self._ended(task)
            else:
                task(due)  # type: ignore[operator]

    def _arm(self, stream: Stream) -> None:
        if stream.armed:
            return
        due = stream.next_due()
        if due:
            stream.armed = True
            self._order += 1
            heapq.heappush(self._heap, (due, self._order, stream))

    def _at(self, due: int, timer: Timer) -> None:
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, timer))

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError:
            return  # It went away, or no descriptor is free: the next one may fare better.
        now = time.monotonic_ns()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = Connection(sock, self._epoll, address[1], now)
        self._connections[conn.fd] = conn
        self._epoll.register(conn.fd, select.EPOLLIN)

    def _serve(self, conn: Connection, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                self._flush(conn)
            if not conn.closed and mask & ~select.EPOLLOUT:
                if not conn.receive():
                    self._drop(conn)
                    return
                if conn.too_large:
                    conn.write(response(413, error_body("the body is too large", 413), keep_alive=False))
                    self._drop(conn)
                    return
                self._answer(conn)
        except httptools.HttpParserError:
            with contextlib.suppress(OSError):
                conn.write(response(400, error_body("not an HTTP/1.1 request", 400), keep_alive=False))
            self._drop(conn)
        except OSError:
            self._drop(conn)

    def _answer(self, conn: Connection) -> None:
        """Take requests from the inbox until one streams or none is left. Raises OSError."""
        while conn.inbox and conn.stream is None and not conn.closed:
            self._routes.handle(conn, conn.inbox.popleft())
            if conn.stream is None and conn.close_when_sent and not conn.out:
                self._drop(conn)

    def _flush(self, conn: Connection) -> None:
        if not conn.flush():
            return
        stream = conn.stream
        if stream is not None:
            stream.drained()
            if stream.over and not stream.armed:
                self._ended(stream)
        elif conn.close_when_sent:
            self._drop(conn)

    def _ended(self, stream: Stream) -> None:
        """Take leave of a stream that is over, and go on with its connection."""
        conn = self._connections.get(stream.client.fd)
        if conn is None or conn.stream is not stream:
            return
        self.engine.ended(stream)
        conn.stream = None
        if conn.closed or stream.ended == "aborted" or (conn.close_when_sent and not conn.out):
            self._drop(conn)
        else:
            try:
                self._answer(conn)
            except OSError:
                self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        """Close a connection; a stream on it is aborted."""
        stream = conn.stream
        if stream is not None:
            stream.end("aborted")
            self.engine.ended(stream)
            conn.stream = None
        self._connections.pop(conn.fd, None)
        conn.close()
