"""A small real HTTP server for tests: routes answered by functions, in threads, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
Routes = dict[str, Callable[[dict[str, Any]], Reply] | Reply]


class Web:
    """What is served: `url`, and `seen`, the (path, headers) of every request."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[tuple[str, dict[str, str]]] = []


@contextlib.contextmanager
def serve(routes: Routes) -> Iterator[Web]:
    """Serve `routes`: path to (status, body), or to a function of the request's JSON body that gives one.

    A body that is bytes is sent as it is (text/html), anything else as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            web.seen.append((self.path, dict(self.headers)))
            found = routes.get(self.path, (404, {"detail": "Not Found"}))
            status, body = found(json.loads(raw) if raw else {}) if callable(found) else found
            kind = "text/html" if isinstance(body, bytes) else "application/json"
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that has given up
                self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
