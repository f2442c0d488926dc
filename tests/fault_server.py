"""An OpenAI-compatible server that injects real faults: real threads, real sockets, standard library only.

In a test: `with FaultServer() as server: ... server.url`. In a process where gevent has patched the standard
library use `FaultServer(in_process=False)`, or run `python -m tests.fault_server --port 0` (prints its URL).

The request's `model` picks the behaviour: any name is served normally, `fault:NAME?key=value&...` with the fault
NAME of `FAULTS` and the options of `Options`; the header `X-Fault: NAME?...` does the same. Examples:
`fault:rst?after=3`, `fault:normal?style=ksana&ttft_ms=50&gap_ms=10`, `fault:http?status=503&html=1`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.fault_streams import (
    DATA,
    EventMaker,
    Options,
    detokenize,
    frame,
    prompt_tokens,
)

HTML_ERROR = b"<html><head><title>Bad</title></head><body><h1>upstream is away</h1></body></html>"

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS: dict[str, tuple[bytes, bytes, float]] = {
    "endless body": (_OK + b"\r\n", b" " * 65536, 0),
    "endless chunks": (_CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", 0),
    "endless chunk head": (_CHUNKED + b"1;", b"x" * 65536, 0),
    "endless trailers": (_CHUNKED + b"0\r\n", b"x: y\r\n" * 8192, 0),
    "endless headers": (_OK, b"x: y\r\n" * 8192, 0),
    "endless header": (_OK + b"x: ", b"y" * 65536, 0),
    "endless interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1024, 0),
    "dripping body": (_OK + b"\r\n", b" ", 0.02),
    "dripping chunks": (_CHUNKED, b"1\r\n \r\n", 0.02),
    "dripping headers": (_OK, b"x", 0.02),
    "dripping interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
}
"""Answers without an end to whatever is asked: what comes first, what comes again and again, and the seconds between.

A server does so whose fault is `flood:` and one of the names.
"""


@dataclass
class Served:
    """What the server did for one request; times are monotonic ns, for tests to compare with."""

    model: str
    prompt_tokens: int = 0
    t_read: int = 0
    t_content: list[int] = field(default_factory=list)  # just before each content event was written


class Abandon(Exception):
    """The fault has ended the connection."""


class Exchange:
    """One connection of one client, served by a thread of its own."""

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self.server, self.sock, self.pending = server, sock, b""

    def serve(self) -> None:
        with self.sock, contextlib.suppress(OSError, Abandon):
            while (request := self.read_request()) is not None:
                if not self.answer(*request):
                    return

    def read_request(self) -> tuple[str, str, dict[str, str], bytes] | None:
        while b"\r\n\r\n" not in self.pending:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.pending += data
        head, _, rest = self.pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(rest) < size:
            rest += self.sock.recv(65536)
        self.pending = rest[size:]
        method, path, _ = first.split(" ")
        return method, path.partition("?")[0], headers, rest[:size]

    def answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> bool:
        """Answer one request; return whether the connection stays."""
        if self.server.fault.startswith("flood:"):
            self.flood(*FLOODS[self.server.fault.removeprefix("flood:")])
        if method == "GET":
            return self.answer_get(path)
        try:
            body: dict[str, Any] = json.loads(raw)
        except ValueError:
            return self.send_json(400, {"error": {"message": "not JSON", "type": "BadRequestError"}})
        if path == "/tokenize":
            tokens = prompt_tokens(body)
            return self.send_json(200, {"count": len(tokens), "max_model_len": 32768, "tokens": tokens})
        if path == "/detokenize":
            return self.send_json(200, {"prompt": detokenize(body.get("tokens", []))})
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return self.send_json(404, {"detail": "Not Found"})
        model = str(body.get("model", ""))
        self.server.note(body)
        wanted = headers.get("x-fault") or (model[6:] if model.startswith("fault:") else self.server.fault)
        try:
            fault, options = Options.parse(wanted)
        except ValueError as error:
            return self.send_json(400, {"error": {"message": str(error), "type": "BadRequestError"}})
        served = Served(model, len(prompt_tokens(body)), time.monotonic_ns())
        self.server.served.append(served)
        maker = EventMaker(path.endswith("chat/completions"), body, options)
        return Answer(self, fault, options, maker, served, bool(body.get("stream"))).send()

    def flood(self, first: bytes, again: bytes, seconds: float) -> None:
        self.sock.sendall(first)
        while not self.server.stopping.wait(seconds):
            self.sock.sendall(again)

    def answer_get(self, path: str) -> bool:
        if path in ("/v1/models", "/models"):
            return self.send_json(200, {"object": "list", "data": self.server.models})
        if path == "/health":
            return self.send_json(200, {"status": "ok"})
        return self.send_json(404, {"detail": "Not Found"})

    def send_json(self, status: int, message: object) -> bool:
        self.send_whole(status, json.dumps(message).encode(), "application/json")
        return True

    def send_whole(self, status: int, body: bytes, kind: str, more: str = "") -> None:
        head = f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.sock.sendall(head.encode() + body)

    def reset(self) -> None:
        """RST instead of FIN: closing with a linger of zero."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise Abandon


class Answer:
    """One response to a generation request, with its fault."""

    def __init__(
        self, exchange: Exchange, fault: str, options: Options, maker: EventMaker, served: Served, stream: bool
    ) -> None:
        self.exchange, self.fault, self.options = exchange, fault, options
        self.maker, self.served, self.stream = maker, served, stream
        self.merged: list[bytes] | None = [] if options.send == "merged" else None

    def send(self) -> bool:
        """Send it all; return whether the connection stays."""
        options, exchange = self.options, self.exchange
        if self.fault == "http":
            return self.send_error()
        if self.fault == "not_http":
            exchange.sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
            return False
        if self.fault == "slow_head":
            self.pause(options.seconds)
        if not self.stream:
            exchange.send_whole(200, self.maker.whole(), "application/json")
            return True
        wire = self.events()
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        head += "Connection: close\r\n" if options.close == 1 else ""
        if self.fault in ("short", "long") or options.framing == "length":
            size = sum(len(data) for data, _ in wire) + {"short": 100, "long": -100}.get(self.fault, 0)
            head += f"Content-Length: {size}\r\n"
            chunked = False
        else:
            chunked = options.framing == "chunked"
            head += "Transfer-Encoding: chunked\r\n" if chunked else "Connection: close\r\n"
        self.write(head.encode() + b"\r\n")
        with self.exchange.server.streaming():
            self.send_events(wire, chunked)
        if chunked:
            self.write(b"0\r\n\r\n")
        self.flush()
        if options.close == 2:
            time.sleep(0.05)
        return not (options.close or options.framing == "close" or self.fault in ("short", "long"))

    def events(self) -> list[tuple[bytes, bool]]:
        """The stream's events on the wire, each with whether it carries content."""
        options = self.options
        if self.fault == "fixture":
            captured = (DATA / Path(options.name).name).read_bytes()
            parts = captured.split(b"\n\n")[:-1]
            return [(part + b"\n\n", b'"content"' in part and b'"role"' not in part) for part in parts]
        payloads = self.maker.payloads()
        if self.fault == "empty":
            payloads = [(payload, content) for payload, content in payloads if not content]
        last = len(payloads) - 1
        return [(frame(payload, i, options, last=i == last), content) for i, (payload, content) in enumerate(payloads)]

    def send_events(self, wire: list[tuple[bytes, bool]], chunked: bool) -> None:
        options, sent = self.options, 0
        due = self.served.t_read + int(options.ttft_ms * 1e6)
        held = b""
        for data, content in wire:
            if content:
                if sent == options.after:
                    self.strike(chunked)
                self.sleep_until(due)
                due += int(options.gap_ms * self.exchange.server.pace() * 1e6)
                sent += 1
                self.served.t_content.append(time.monotonic_ns())
            held += f"{len(data):x}\r\n".encode() + data + b"\r\n" if chunked else data
            if not content or sent % options.clump == 0:
                self.write(held)
                held = b""
        if sent <= options.after:
            self.strike(chunked)

    def strike(self, chunked: bool) -> None:
        """Do the fault that happens in mid-stream, if this is one."""
        fault, options = self.fault, self.options
        if fault in ("fin", "rst", "stall", "bad_chunk"):
            self.flush()
        if fault == "fin":
            raise Abandon
        if fault == "rst":
            time.sleep(0.05)  # let what was sent be acknowledged and read: a reset may discard it
            self.exchange.reset()
        if fault == "stall":
            self.pause(options.seconds)
            raise Abandon
        if fault == "bad_chunk":
            self.exchange.sock.sendall(b"zz\r\nnot a chunk\r\n")
            self.pause(0.2)
            raise Abandon
        if fault in ("error_event", "garbage"):
            error = {"message": "the engine gave up", "type": "InternalServerError", "code": 500}
            payload = json.dumps({"error": error}).encode() if fault == "error_event" else b'{"choices": [{"te'
            if options.named:
                payload = json.dumps(error).encode()
            data = frame(payload, 1, options, name="error" if options.named else "")
            self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" if chunked else data)
            if fault == "error_event":
                self.write(b"0\r\n\r\n" if chunked else b"")
                self.flush()
                raise Abandon

    def send_error(self) -> bool:
        status, html = self.options.status, self.options.html
        error = {"message": f"fault {status}", "type": "Fault", "code": status}
        body = HTML_ERROR if html else json.dumps({"error": error}).encode()
        more = "Retry-After: 1\r\n" if status == 429 else ""
        self.exchange.send_whole(status, body, "text/html" if html else "application/json", more)
        return True

    def write(self, data: bytes) -> None:
        if self.merged is not None:
            self.merged.append(data)
        elif self.options.send == "bytes":
            for byte in data:
                self.exchange.sock.sendall(bytes((byte,)))
        else:
            self.exchange.sock.sendall(data)

    def flush(self) -> None:
        if self.merged:
            self.exchange.sock.sendall(b"".join(self.merged))
            self.merged.clear()

    def pause(self, seconds: float) -> None:
        """Wait, but end with the server."""
        if self.exchange.server.stopping.wait(seconds):
            raise Abandon

    def sleep_until(self, due_ns: int) -> None:
        while (left := due_ns - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)


class FaultServer:
    """The server, on 127.0.0.1 (or `host`) and a free port, for as long as the context lasts.

    `served`: what was done for each generation request; only filled where the server is in this process.
    `tls`: an `ssl.SSLContext` for serving https. `fault`: what a request gets that names no fault itself.
    `log`: a file to which every generation request's body is appended, one JSON line each.
    `models`: entries of the model list (only in this process).
    `pace`: by which factor the gaps between events are longer now (only in this process).
    """

    def __init__(
        self,
        *,
        in_process: bool = True,
        port: int = 0,
        host: str = "127.0.0.1",
        tls: Any = None,
        models: Any = None,
        fault: str = "normal",
        log: Path | None = None,
    ) -> None:
        self.fault, self.log = fault, log
        self._log_lock = threading.Lock()
        self.in_process, self.port, self.host, self.tls = in_process, port, host, tls
        self.models = models or [{"id": "fault-model", "object": "model"}]
        self.pace: Callable[[], float] = lambda: 1.0
        self.streams = 0
        self.served: list[Served] = []
        self.stopping = threading.Event()
        self.connections = 0
        self._process: subprocess.Popen[str] | None = None
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> Self:
        if self.in_process:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            self._listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, daemon=True).start()
        else:
            command = [sys.executable, "-m", "tests.fault_server", "--port", str(self.port), "--host", self.host]
            command += ["--fault", self.fault, *(["--log", str(self.log)] if self.log else [])]
            top = Path(__file__).resolve().parent.parent
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=top)
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError("the fault server did not start")
            self.port = int(line.rsplit(":", 1)[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream while it runs."""
        with self._log_lock:
            self.streams += 1
        try:
            yield
        finally:
            with self._log_lock:
                self.streams -= 1

    def kill(self) -> None:
        """End the server's process at once, as kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def note(self, body: dict[str, Any]) -> None:
        """Log a body."""
        if self.log is not None:
            with self._log_lock, self.log.open("a") as file:
                file.write(json.dumps(body) + "\n")

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self._open.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Exchange(self, self.tls.wrap_socket(sock, server_side=True) if self.tls else sock).serve()
        except OSError:
            pass  # a client that left, or refused our certificate
        finally:
            self._open.discard(sock)
            sock.close()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--fault", default="normal", help="for requests that name none")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    server = FaultServer(port=options.port, host=options.host, fault=options.fault, log=options.log)
    with server, contextlib.suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
