"""A stand-in for Grafana: a real HTTP server that keeps annotations as Grafana's documentation says, with faults.

https://grafana.com/docs/grafana/latest/developers/http_api/annotations/; that a patch with an empty list of tags
removes them, and one with an empty text or a time of 0 changes neither, is Grafana's own code.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import socket
import threading
import time
from typing import Any

PASSWORD = "Passw0rd-1!"
FAULTS = ("refused", "401", "403", "500", "html", "hang", "slam")


class FakeGrafana:
    """As a context. `fault` may be changed at any time; "" answers as Grafana does. `kept` is there from the start."""

    def __init__(self, fault: str = "", port: int = 0, kept: dict[int, dict[str, Any]] | None = None) -> None:
        self.fault = fault
        self.annotations = {} if kept is None else kept
        self.requests: list[tuple[str, str]] = []
        self.connections: list[socket.socket] = []
        self._port = port

    def __enter__(self) -> FakeGrafana:
        fake = self

        class Handler(_Handler):
            grafana = fake

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def die(self) -> None:
        """Stop listening and cut every connection; what was kept is kept."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def texts(self) -> list[str]:
        return [annotation["text"] for annotation in self.annotations.values()]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    grafana: FakeGrafana

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.grafana.connections.append(self.connection)

    def _answer(self, status: int, body: Any) -> None:
        html = isinstance(body, str)
        data = body.encode() if html else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if html else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        expected = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def do_POST(self) -> None:
        self._take("POST")

    def do_PATCH(self) -> None:
        self._take("PATCH")

    def _take(self, method: str) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.grafana.requests.append((method, self.path))
        match self.grafana.fault:
            case "hang":
                time.sleep(3600)
            case "slam":
                self.close_connection = True
                return
            case "html":
                return self._answer(200, "<html>Log in to this hotel's network</html>")
            case "500":
                return self._answer(500, {"message": "Failed to save annotation"})
            case "403":
                return self._answer(403, {"message": "You'll need additional permissions: annotations:create"})
        if self.grafana.fault == "401" or not self._allowed():
            return self._answer(401, {"message": "Invalid username or password"})
        if method == "POST" and self.path == "/api/annotations":
            return self._create(told)
        found = re.fullmatch(r"/api/annotations/(\d+)", self.path)
        if method == "PATCH" and found:
            return self._patch(int(found[1]), told)
        return self._answer(404, {"message": "Not found"})

    def _create(self, told: dict[str, Any]) -> None:
        if not told.get("text"):
            return self._answer(400, {"message": "Failed to save annotation: text field should not be empty"})
        number = len(self.grafana.annotations) + 1
        start = told.get("time") or time.time_ns() // 1_000_000
        self.grafana.annotations[number] = {
            "time": start,
            "timeEnd": told.get("timeEnd") or start,
            "tags": told.get("tags") or [],
            "text": told["text"],
        }
        return self._answer(200, {"message": "Annotation added", "id": number})

    def _patch(self, number: int, told: dict[str, Any]) -> None:
        kept = self.grafana.annotations.get(number)
        if kept is None:
            return self._answer(404, {"message": "Could not find annotation to update"})
        if told.get("tags") is not None:
            kept["tags"] = told["tags"]
        for key in ("text", "time", "timeEnd"):
            if told.get(key):
                kept[key] = told[key]
        return self._answer(200, {"message": "Annotation patched"})
