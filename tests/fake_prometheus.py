"""A server on an ephemeral port that answers Prometheus' API as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[dict[str, str]], tuple[int, bytes]]


class FakePrometheus:
    """Answers with what `answer` returns: an HTTP status and a body."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: Answer = lambda query: (200, b"{}")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()} | {"path": parts.path}
                outer.asked.append(query)
                status, body = outer.answer(query)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def success(data: Any) -> tuple[int, bytes]:
    """The answer that Prometheus wraps data into."""
    return 200, json.dumps({"status": "success", "data": data}).encode()


def matrix(*series: tuple[dict[str, str], list[tuple[float, float | str]]]) -> tuple[int, bytes]:
    """The answer to a range query: labels and points of each series."""
    result = [{"metric": labels, "values": [[at, str(value)] for at, value in points]} for labels, points in series]
    return success({"resultType": "matrix", "result": result})


def vector(at: float, *samples: tuple[dict[str, str], float | str]) -> tuple[int, bytes]:
    """The answer to an instant query."""
    result = [{"metric": labels, "value": [at, str(value)]} for labels, value in samples]
    return success({"resultType": "vector", "result": result})
