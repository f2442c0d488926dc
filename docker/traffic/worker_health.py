"""Health of a Locust worker: does the master know the worker of this container as one that works?

`worker_health.py HOST:PORT` of the master's web server; exit status 0 if it does. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys

WORKING = ("ready", "spawning", "running", "cleanup")
"""States of `locust.runners` in which a worker can take or does take work."""


def main(master: str) -> int:
    """Ask, and say what is wrong."""
    connection = http.client.HTTPConnection(master, timeout=4)
    connection.request("GET", "/bakeoff/workers")
    workers = json.load(connection.getresponse())
    # Locust makes a worker's id of its host's name.
    own = [state for name, state in workers.items() if name.startswith(f"{socket.gethostname()}_")]
    if any(state in WORKING for state in own):
        return 0
    print(f"the master at {master} knows this worker as {own or 'nobody'}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
