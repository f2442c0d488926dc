"""Answer every GET with what this process may do, as JSON."""

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import wsproto  # installed in the build, so that a package from a registry is proved to have come


def written(path):
    try:
        Path(path).write_text("x")
    except OSError as error:
        return error.strerror
    return "written"


def status():
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        told = {
            "uid": os.getuid(),
            "gid": os.getgid(),
            "capabilities": [status()[name] for name in ("CapPrm", "CapEff", "CapBnd")],
            "no_new_privileges": status()["NoNewPrivs"],
            "cpus": sorted(os.sched_getaffinity(0)),
            "init": Path("/proc/1/comm").read_text().strip(),
            "root": written("/x"),
            "tmp": written("/tmp/x"),
            "package": wsproto.__version__,
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def stop(number, _):
    print("stopped by", signal.Signals(number).name, flush=True)
    os._exit(0)


for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, stop)
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
