"""A real HTTP server that takes only what it is told to take, and a proxy that buffers: for endpoints of every sort."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Refuse = Callable[[str, Any, dict[str, Any]], tuple[int, str] | None]
TOKENS = 4
ROUTES = {"/chat/completions": "chat", "/completions": "completions", "/responses": "responses"}


class Handler(BaseHTTPRequestHandler):
    """Answers of four tokens by all three APIs, wherever they are, unless `refuse` has another answer."""

    protocol_version = "HTTP/1.1"
    refuse: Refuse
    models: Any
    seen: list[tuple[str, dict[str, str], dict[str, Any]]]

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        refused = type(self).refuse(self.path, self.headers, {}) if path.endswith("/models") else (404, "no such route")
        found = self.models if path.endswith("/models") else None
        self._whole(*(refused or ((404, "no list") if found is None else (200, json.dumps(found)))))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, dict(self.headers), body))
        api = next((api for end, api in ROUTES.items() if self.path.partition("?")[0].endswith(end)), None)
        refused = type(self).refuse(self.path, self.headers, body) if api else (404, "no such route")
        if refused:
            self._whole(*refused)
            return
        text = body["messages"][0]["content"] if api == "chat" else body["input" if api == "responses" else "prompt"]
        prompt = len(text.split()) + 5 * (api != "completions")
        wanted = next((body[n] for n in ("max_tokens", "max_completion_tokens", "max_output_tokens") if n in body), 1)
        usage = {"prompt_tokens": prompt, "completion_tokens": wanted}
        if api == "responses":
            usage = {"input_tokens": prompt, "output_tokens": wanted}
            done = {"object": "response", "status": "completed", "usage": usage, "output": []}
            if body.get("stream"):
                events = [{"type": "response.output_text.delta", "delta": " tok"}] * wanted
                self._stream([*events, {"type": "response.completed", "response": done}])
            else:
                self._whole(200, json.dumps(done))
            return
        piece = {"delta": {"content": " tok"}} if api == "chat" else {"text": " tok"}
        events = [{"choices": [{"index": 0, **piece, "finish_reason": None}]}] * wanted
        last = {
            "choices": [{"index": 0, **(piece | {"delta": {}, "text": ""}), "finish_reason": "length"}],
            "usage": usage,
        }
        if body.get("stream"):
            self._stream([*events, last])
        else:
            message = {"message": {"content": " tok"}, "text": " tok", "finish_reason": "length"}
            self._whole(200, json.dumps({"choices": [message], "usage": usage}))

    def _whole(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _stream(self, events: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in [*(json.dumps(event) for event in events), "[DONE]"]:
            part = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


class Proxy(Handler):
    """Hands a request on and gives the answer when all of it has come, as nginx does with proxy_buffering."""

    upstream = ""

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, data: bytes | None) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = urllib.request.Request(self.upstream + self.path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                status, kind, body = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, body = error.code, error.headers["Content-Type"], error.read()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def served(handler: type[Handler], certificate: tuple[Path, Path] | None = None, **settings: Any) -> Iterator[Any]:
    """A server on loopback that runs; `url` is where, `seen` what was posted to it."""
    defaults = {"refuse": lambda *_: None, "models": {"data": [{"id": "m", "owned_by": "me"}]}, "seen": []}
    kind = type("Served", (handler,), {key: _plain(value) for key, value in {**defaults, **settings}.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    server.seen = kind.seen
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _plain(value: Any) -> Any:
    return staticmethod(value) if callable(value) else value


def private_authority(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """The certificate of a new authority, and one for 127.0.0.1 that it signed, with its key. By openssl's command."""
    files = {name: folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "request.pem", "names")}
    files["names"].write_text("subjectAltName=IP:127.0.0.1\n")
    make = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    for command in (
        [*make, "/CN=private", "-x509", "-days", "2", "-keyout", files["ca.key"], "-out", files["ca.pem"]],
        [*make, "/CN=server", "-keyout", files["server.key"], "-out", files["request.pem"]],
        [
            "openssl",
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            files["request.pem"],
            "-CA",
            files["ca.pem"],
            "-CAkey",
            files["ca.key"],
            "-CAcreateserial",
            "-extfile",
            files["names"],
            "-out",
            files["server.pem"],
        ],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return files["ca.pem"], (files["server.pem"], files["server.key"])
