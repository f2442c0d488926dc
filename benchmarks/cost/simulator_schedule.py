"""How well does the simulator keep its schedule? Run: `python -m benchmarks.cost.simulator_schedule --help`.

Starts the simulator on one core and a plain epoll client on another, closed loop, and prints what the simulator's own
truth log says: the lag of its writes behind their due times. `--blast` counts events a second instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import time

from benchmarks.simulated import ask, command_line, simulator

END = b"\r\n0\r\n\r\n"


def running(args: argparse.Namespace, *options: str) -> contextlib.AbstractContextManager[str]:
    """The simulator on its core; gives its URL."""
    return simulator(*options, *args.options, core=args.server_cpu, realtime=args.realtime and not args.blast)


def drive(url: str, streams: int, requests: int, tokens: int) -> float:
    """Run `requests` on each of `streams` connections, one after another; return the seconds it took."""
    body = json.dumps({"model": "simulated", "prompt": "one two three", "max_tokens": tokens, "stream": True,
                       "stream_options": {"include_usage": True}}).encode()  # fmt: skip
    request = (
        b"POST /v1/completions HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    request = request % len(body) + body
    epoll = select.epoll()
    sockets = {}
    for _ in range(streams):
        sock = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)
    left = dict.fromkeys(sockets, requests)
    tails = dict.fromkeys(sockets, b"")
    began = time.monotonic()
    for sock in sockets.values():
        sock.send(request)
    active = len(sockets)
    while active:
        for fd, _ in epoll.poll():
            data = sockets[fd].recv(262144)
            if not data:
                raise SystemExit("the simulator closed a stream")
            tail = tails[fd] = (tails[fd] + data)[-len(END) :]
            if tail == END:
                left[fd] -= 1
                if left[fd]:
                    sockets[fd].send(request)
                else:
                    active -= 1
    took = time.monotonic() - began
    for sock in sockets.values():
        sock.close()
    return took


def schedule(args: argparse.Namespace) -> None:
    """Print the lag at each number of streams, `--repeats` times.

    med sec and max sec: median and highest of the seconds' p99; read p99: how late requests were read.
    """
    names = ("streams", "run", "events/s", "p50 ms", "p99 ms", "max ms", "med sec", "max sec", "read p99")
    print(" ".join(f"{name:>8}" for name in names), "verdict")
    for streams in args.streams:
        for repeat in range(args.repeats):
            with running(args) as url:
                drive(url, streams, 1, 16)
                ask(f"{url}/truth/reset", "POST")
                took = drive(url, streams, args.requests, args.tokens)
                found = json.loads(ask(f"{url}/truth/summary"))
            lag, read, seconds = found["lag_ms"], found["request_read_lag_ms"], found["lag_p99_by_second_ms"]
            events = streams * args.requests * args.tokens
            counts = f"{streams:>8} {repeat:>8} {events / took:>8.0f}"
            times = (lag["p50"], lag["p99"], lag["max"], seconds.get("median", 0), seconds.get("max", 0), read["p99"])
            print(counts, " ".join(f"{value:>8.3f}" for value in times), found["verdict"], flush=True)


def blast(args: argparse.Namespace) -> None:
    """Print events a second with everything at once."""
    for repeat in range(args.repeats):
        with running(args, "--ttft-ms", "0", "--tpot-ms", "0") as url:
            drive(url, 16, 1, 1024)
            took = drive(url, 16, args.requests, 1024)
        print(f"blast {repeat}: {16 * args.requests * 1024 / took:,.0f} events/s, 16 streams of 1,024 tokens")


def main() -> None:
    """Parse options and measure."""
    parser = command_line(__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--requests", type=int, default=5, help="requests of each stream [5]")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--realtime", action="store_true", help="start the simulator with SCHED_FIFO")
    parser.add_argument("--blast", action="store_true")
    parser.add_argument("options", nargs="*", help="options of the simulator, after --")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.client_cpu})
    if args.blast:
        blast(args)
    else:
        schedule(args)


if __name__ == "__main__":
    main()
