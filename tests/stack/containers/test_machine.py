"""What is found of Docker and Compose on a machine, with programs and sockets of our own making."""

import http.server
import json
import socketserver
import threading
import time

import pytest

from loadgen.errors import UserError
from stack.containers.compose import Compose, find_compose, version_of
from stack.containers.docker_engine import DockerEngine, engine_address, find_engine


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.29.1\n", (2, 29)), ("v2.40.3-desktop.1", (2, 40)), ("5.6.1", (5, 6)), ("", None), ("unknown", None)],
)
def test_versions(text, version):
    assert version_of(text) == version


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_plugin_goes_before_the_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    program(tmp_path, "docker", "echo 2.30.0")
    program(tmp_path, "docker-compose", "echo 2.31.0")
    assert find_compose() == ("docker", "compose")
    program(tmp_path, "docker", "echo unknown command; exit 1")
    assert find_compose() == ("docker-compose",)
    program(tmp_path, "docker-compose", "echo 1.29.2")
    assert "1.29, and 2.20 or newer is needed" in find_compose()


def test_no_compose(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compose() == "neither `docker compose` nor `docker-compose` runs here"


def test_a_compose_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    program(tmp_path, "docker", "exec sleep 60")
    program(tmp_path, "docker-compose", "exec sleep 60")
    assert find_compose(limit_s=0.2) == "neither `docker compose` nor `docker-compose` runs here"


def test_a_failure_quotes_compose(tmp_path):
    program(tmp_path, "compose", "echo 'service x: no such image' >&2; exit 17")
    compose = Compose([str(tmp_path / "compose")], tmp_path, {})
    with pytest.raises(UserError, match=r"config.*failed:\n  \| service x: no such image"):
        compose.services()


def test_where_the_engine_should_be(monkeypatch, tmp_path):
    assert engine_address({"DOCKER_HOST": "tcp://127.0.0.1:2375"}) == "tcp://127.0.0.1:2375"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engine_address({}).endswith("docker.sock")


def test_no_socket():
    assert find_engine("unix:///nowhere/docker.sock") == "there is no /nowhere/docker.sock"


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that gave up is no news."""


def serve(path, reply):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self):
            return "local"

        def log_message(self, *_):
            pass

        def do_GET(self):
            body = json.dumps(reply(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = Unix(str(path), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def facts(path):
    if path.endswith("/version"):
        return {"ApiVersion": "1.47", "Version": "27.0.0"}
    return {"ServerVersion": "27.0.0", "Runtimes": {"runc": {}, "nvidia": {}}}


def test_an_engine_with_the_nvidia_runtime(tmp_path):
    server = serve(tmp_path / "docker.sock", facts)
    try:
        address = f"unix://{tmp_path}/docker.sock"
        assert find_engine(address) == DockerEngine(address, "27.0.0", gpu_runtime=True)
    finally:
        server.shutdown()
        server.server_close()


def test_an_engine_that_hangs_is_given_up(tmp_path):
    gone = threading.Event()
    server = serve(tmp_path / "docker.sock", lambda path: gone.wait(300) and {})
    try:
        began = time.monotonic()
        assert "nothing answers at" in find_engine(f"unix://{tmp_path}/docker.sock", limit_s=1)
        assert time.monotonic() - began < 120
    finally:
        gone.set()
        server.shutdown()
        server.server_close()
