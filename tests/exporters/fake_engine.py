"""A stand-in for an engine: a real process with a real socket, told over HTTP to hold memory, fork or hang.

`python fake_engine.py PORT FLAVOUR [launch]`; prints `ready PORT PID` once it listens. With `launch` a launcher
process starts the server as its child, in its own process group, as engines do. With two ports ("0,0") a launcher
starts two servers.
"""

import ctypes
import http.server
import json
import mmap
import os
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

MIB = 1 << 20
held: list[mmap.mmap] = []
hanging = threading.Event()
asked = threading.Event()
"""Whether somebody waits for an engine that hangs."""


def hold(mib: int) -> mmap.mmap:
    """Private anonymous memory, every page written."""
    block = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, mib * MIB, 4096):
        block[offset] = 1
    return block


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def fork(mib: int, seconds: float, stay: bool) -> int:
    """Fork a child that holds memory and burns CPU; it says when it is done, then stays or ends."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        block = hold(mib) if mib else None
        burn(seconds)
        os.write(writer, b"x")
        while stay:
            time.sleep(3600)
        del block
        os._exit(0)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid


class Handler(http.server.BaseHTTPRequestHandler):
    flavour = "vllm"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urlsplit(self.path)
        q = {key: float(values[0]) for key, values in parse_qs(url.query).items()}
        match url.path:
            case "/control/alloc":
                held.append(hold(int(q["mib"])))
                return self.answer({"pid": os.getpid()})
            case "/control/free":
                held.clear()
                return self.answer({})
            case "/control/fork":
                return self.answer({"pid": fork(int(q.get("mib", 0)), q.get("cpu", 0), q.get("stay", 1) > 0)})
            case "/control/wait":
                return self.answer({"pid": os.waitpid(int(q["pid"]), 0)[0]})
            case "/control/burn":
                burn(q["cpu"])
                return self.answer({})
            case "/control/flavour":
                type(self).flavour = url.query
                return self.answer({})
            case "/control/hang":
                hanging.set()
                return self.answer({})
            case "/control/asked":
                asked.wait()
                return self.answer({})
        if hanging.is_set():
            asked.set()
            time.sleep(3600)
        self.engine(url.path)

    def engine(self, path):
        answers = {
            "vllm": {
                "/health": b"",
                "/v1/models": {"object": "list", "data": [{"id": "gemma", "owned_by": "vllm", "max_model_len": 4096}]},
                "/version": {"version": "0.32.0"},
            },
            "llamacpp": {
                "/health": {"status": "ok"},
                "/v1/models": {
                    "models": [{}],
                    "data": [{"id": "gemma", "owned_by": "llamacpp", "meta": {"n_ctx": 512, "n_ctx_train": 32768}}],
                },
                "/props": {"build_info": "b11549-abc"},
                "/version": {"version": "not this one"},
            },
            "ksana": {"/models": {"object": "list", "data": [{"id": "qwen", "owned_by": "KsanaLLM"}]}},
            "broken": {"/health": b"OK", "/v1/models": b'{"data": [1, {"id": 7}, nul', "/version": [1]},
            "empty": {"/health": b"", "/v1/models": {"object": "list", "data": []}},
            "endless": {"/health": b"x" * (2 * MIB)},
            "loading": {},
        }[self.flavour]
        if self.flavour == "loading":
            return self.answer({"error": "loading"}, 503)
        if path not in answers:
            return self.answer({"detail": "Not Found"}, 404)
        return self.answer(answers[path])


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


def main() -> None:
    ports, flavour = sys.argv[1].split(","), sys.argv[2]
    ctypes.CDLL(None).prctl(1, 9)  # die with the test, whatever happens to it
    if "launch" in sys.argv:
        children = [subprocess.Popen([sys.executable, __file__, port, flavour]) for port in ports]
        for child in children:
            child.wait()
        return
    Handler.flavour = flavour
    server = Server(("127.0.0.1", int(ports[0])), Handler)
    os.write(1, f"ready {server.server_port} {os.getpid()}\n".encode())  # one write: two servers may share stdout
    server.serve_forever()


main()
