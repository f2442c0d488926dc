"""A server that plays streams as data, each under a path of its own: pieces of bytes, and pauses in seconds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.loadgen.stream.test_streams_reported import HEAD, Step

Refusal = tuple[int, Any]


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request: its path is the one behind the case's own, `prompt` and `wanted` are numbers of tokens."""

    path: str
    body: Mapping[str, Any]
    prompt: int

    @property
    def wanted(self) -> int:
        return int(self.body.get("max_tokens") or self.body.get("max_completion_tokens") or 16)

    def counted(self, completion: int, **more: Any) -> dict[str, Any]:
        """The usage of an answer of so many tokens."""
        total = self.prompt + completion
        return {"prompt_tokens": self.prompt, "completion_tokens": completion, "total_tokens": total, **more}


def _open_to_all(_: Asked) -> Refusal | None:
    return None


@dataclasses.dataclass(frozen=True)
class Played:
    """How a server behaves."""

    stream: Callable[[Asked], list[Step]]
    refuse: Callable[[Asked], Refusal | None] = _open_to_all
    """Status and JSON for what it does not take; of a GET the body is empty."""
    head: bytes = HEAD
    overhead: int = 5
    """Prompt tokens beside the words."""
    counts: bool = True
    """Whether an answer that is no stream has usage."""
    text: str = "a"


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while (first := self.rfile.readline()).strip():
                headers = {}
                while line := self.rfile.readline().strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                raw = self.rfile.read(int(headers.get("content-length", 0)))
                self.answer(first.decode().split()[1], json.loads(raw) if raw else {})

    def answer(self, path: str, body: dict[str, Any]) -> None:
        _, name, rest = path.split("/", 2)
        case = self.server.cases[name]
        text = body.get("prompt", body.get("messages", ""))
        text = " ".join(message["content"] for message in text) if isinstance(text, list) else text
        asked = Asked(f"/{rest}", body, len(text.split()) + case.overhead)
        if refused := case.refuse(asked):
            self.whole(*refused)
        elif not body:
            self.whole(200, {"object": "list", "data": [{"id": "m"}]}) if rest == "v1/models" else self.whole(404, {})
        elif not body.get("stream"):
            message = {"message": {"role": "assistant", "content": case.text}, "text": case.text}
            answer = {"choices": [{"index": 0, **message, "finish_reason": "length"}]}
            self.whole(200, answer | ({"usage": asked.counted(asked.wanted)} if case.counts else {}))
        else:
            self.wfile.write(case.head)
            for step in case.stream(asked):
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    assert isinstance(step, bytes)
                    self.wfile.write(step)

    def whole(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}"
        self.wfile.write(f"HTTP/1.1 {status} It\r\n{kind}\r\n\r\n".encode() + data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64
    cases: Mapping[str, Played]


@contextlib.contextmanager
def played(cases: Mapping[str, Played]) -> Iterator[str]:
    """The server, up; a case is at the URL that is given, followed by its name."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.cases = cases
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(5)
