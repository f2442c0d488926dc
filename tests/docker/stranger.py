"""What a stranger in an engine's container does, with Python alone: looks whom it reaches, and knocks without end.

`python -c SCRIPT JSON` with `names` and `ports` (all pairs of which are tried), `doors` (HOST:PORT, where it knocks)
and `messages` (for them, in hex). It prints what it reached as a line of JSON, then how often it has knocked.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import socket
import struct
import sys
import time
from typing import Any

LIMIT_S = 2.0
PAUSE_S = 0.02


def reaches(name: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        with socket.create_connection((name, port), LIMIT_S):
            return True
    except OSError:
        return False


def greeting(mechanism: bytes) -> bytes:
    """The first 64 bytes of ZeroMQ's protocol, version 3.1."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def frame(body: bytes, flags: int = 0) -> bytes:
    """A frame of it: 4 in the flags marks a command."""
    return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body


def knocks(messages: list[bytes]) -> list[bytes]:
    """What is said at a door, a connection each: nothing, bytes, frames, messages of Locust's, a push."""
    ready = frame(b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\nstranger_1", 4)
    plain = greeting(b"NULL") + ready
    push = b"POST /v1/metrics HTTP/1.1\r\nHost: ksana-exporter:9103\r\nContent-Type: application/x-protobuf\r\n"
    return [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        push + b"Content-Length: 4\r\nConnection: close\r\n\r\n" + b"\xff" * 4,
        bytes(4096),
        plain + frame(b""),
        plain + frame(b"\x91" * 100_000),
        *(plain + frame(each) for each in messages),
        greeting(b"CURVE") + frame(b"\x05HELLO\x01\x00" + bytes(192), 4),
        greeting(b"PLAIN") + frame(b"\x05HELLO\x06worker\x06secret", 4),
    ]


def main(told: dict[str, Any]) -> None:
    """Look around, then knock until somebody ends this."""
    pairs = list(itertools.product(told["names"], told["ports"]))
    with concurrent.futures.ThreadPoolExecutor(len(pairs)) as pool:
        found = pool.map(lambda pair: reaches(*pair), pairs)
        print(json.dumps([f"{name}:{port}" for (name, port), there in zip(pairs, found, strict=True) if there]))
    sys.stdout.flush()
    said = itertools.product(knocks([bytes.fromhex(each) for each in told["messages"]]), told["doors"])
    for number, (words, door) in enumerate(itertools.cycle(said), start=1):
        host, _, port = door.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), LIMIT_S) as connection:
            connection.settimeout(LIMIT_S)
            connection.sendall(words)
            if words:
                connection.recv(4096)
        if number % 100 == 0:
            print(number, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
