"""A plain blocking client and a simulator in a process of its own, for the tests. Shares no code with either side."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
ENDS = ("complete", "closed", "reset", "timeout")


@dataclass
class Answer:
    """One answer: each chunk with the time at which it was read, and how the body ended."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    end: str = ""
    t_send: int = 0
    port: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @property
    def events(self) -> list[Any]:
        """Decoded events, `[DONE]` as that text."""
        texts = [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    @property
    def content(self) -> list[tuple[int, str]]:
        """Time and text of each content event."""
        out = []
        for at, data in self.chunks:
            if data.startswith(b"data: {"):
                choices = json.loads(data[6:])["choices"]
                text = (choices[0].get("text") or choices[0].get("delta", {}).get("content")) if choices else None
                if text:
                    out.append((at, text))
        return out

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float = 120.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._at = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        self._at = time.monotonic_ns()
        if not data:
            raise EOFError
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: simulator", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        answer = Answer(t_send=time.monotonic_ns(), port=self.sock.getsockname()[1])
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        try:
            self._read(answer)
        except EOFError:
            answer.end = "closed"
        except ConnectionResetError:
            answer.end = "reset"
        except TimeoutError:
            answer.end = "timeout"
        return answer

    def _read(self, answer: Answer) -> None:
        status, *lines = self._until(b"\r\n\r\n").decode().split("\r\n")
        answer.status = int(status.split()[1])
        answer.headers = dict(line.lower().split(": ", 1) for line in lines)
        if "transfer-encoding" not in answer.headers:
            body = self._exactly(int(answer.headers["content-length"]))
            answer.chunks.append((self._at, body))
            answer.end = "complete"
            return
        while True:
            size = int(self._until(b"\r\n"), 16)
            data = self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if not size:
                answer.end = "complete"
                return
            answer.chunks.append((self._at, data))


class Simulator:
    """A simulator process on a free port."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "simulator", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            raise AssertionError(f"did not start: {line}{self.process.communicate()[1]}")
        self.port = int(line.split()[1].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> tuple[int, str]:
        """Ask it to end; returns its exit status and all it printed after the first line."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out + err

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with Client(self.port) as client:
            return client.ask(method, path, body, **headers)

    def truth(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the summary and the requests, once no stream is open."""
        deadline = time.monotonic() + 120
        while (answer := self.ask("GET", "/truth")).status == 409 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert answer.status == 200
        head, *requests = [json.loads(line) for line in answer.body.decode().splitlines()]
        return head["summary"], requests


@contextlib.contextmanager
def running(*options: str) -> Iterator[Simulator]:
    simulator = Simulator(*options)
    try:
        yield simulator
    finally:
        if simulator.process.poll() is None:
            simulator.stop()


def completion(**changes: Any) -> dict[str, Any]:
    body = {"model": "simulated", "prompt": "one two three", "max_tokens": 6, "stream": True}
    return {**body, "stream_options": {"include_usage": True}, **changes}


def chat(**changes: Any) -> dict[str, Any]:
    body = completion(messages=[{"role": "user", "content": "one two three"}])
    del body["prompt"]
    return {**body, **changes}
