"""Mutated streams through the whole reader, from bytes to a record on disk, without a socket.

    python -m benchmarks.stream_fuzz --streams 1000000 --seed 1

Each stream is one of real servers' forms, broken at random places: bytes flipped, cut out, doubled or put in, whole
responses cut off, joined, or handed over in other pieces. Whatever comes, each ends in one record that can be written
down and read again, and nothing is raised. Prints the seed, the time taken and the records by kind.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from loadgen.record import RequestRecord
from loadgen.stream.exchange import RequestSettings, exchange
from loadgen.stream.http_stream import ResponseStream
from loadgen.stream.timed_socket import Skim
from loadgen.stream.timeouts import Timeouts

DATA = Path(__file__).parents[1] / "tests" / "data"
TIMEOUTS = Timeouts(connect_s=5, stall_s=60, total_s=60)
GAP_NS = 20_000_000
ODD = (
    *(
        b"\x00",
        b"\xff",
        b"\xed\xa0\xbd",
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"data: ",
        b"event: error\n",
        b": ",
    ),
    *(b'"\\ud83d"', b"1e999", b"NaN", b"9" * 400, b"[" * 3000, b'{"a":' * 3000, b"null", b"true", b"{}", b"[]", b'""'),
    *(
        b'"finish_reason":"abort"',
        b'"usage":{"completion_tokens":0}',
        b'{"error":{"message":"x"}}',
        b"data: [DONE]\n\n",
    ),
)


def _chunk(choice: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"object": "chat.completion.chunk", "choices": [{"index": 0, **choice}], **more}).encode()


USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
FINISH = _chunk({"delta": {}, "finish_reason": "length"}, usage=USAGE)


def _forms() -> list[list[bytes]]:
    """Payloads of streams as servers send them."""
    deltas: list[dict[str, Any]] = [
        {"content": " tok"},
        {"content": "</think>"},
        {"reasoning_content": " hm"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]},
    ]
    made = [[_chunk({"delta": delta, "finish_reason": None})] * 4 + [FINISH, b"[DONE]"] for delta in deltas]
    text = json.dumps({"choices": [{"index": 0, "text": " tok", "finish_reason": None}]}).encode()
    made.append([text] * 4 + [FINISH, b"[DONE]"])
    captured = [file.read_bytes() for file in sorted(DATA.glob("*-stream.sse"))]
    for file in sorted((DATA / "streams").glob("*.jsonl")):
        reads = [json.loads(line) for line in file.read_text("utf-8").splitlines()[1:]]
        captured.append("".join(text for _, text in reads).encode())
    for data in captured:
        lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
        made.append([*lines[:6], *lines[-3:]])
    return made


def _response(payloads: list[bytes], chance: random.Random) -> bytes:
    """A whole response in one of HTTP's framings."""
    events = [b"data: " + payload + b"\n\n" for payload in payloads]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    framing = chance.randrange(4)
    if framing == 0:
        body = b"".join(events)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == 1:
        return head + b"\r\n" + b"".join(events)
    return (
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in events)
        + b"0\r\n\r\n"
    )


def mutated(forms: list[list[bytes]], chance: random.Random) -> list[bytes]:
    """The pieces in which one broken response is read."""
    payloads = list(chance.choice(forms))
    if chance.random() < 0.5:  # broken inside one payload, with the framing whole
        place = chance.randrange(len(payloads))
        payloads[place] = _broken(payloads[place], chance)
    data = _response(payloads, chance)
    if chance.random() < 0.5:
        data = _broken(data, chance)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
    return [piece for piece in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)) if piece]


def _broken(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.randrange(1, 40))
    kind = chance.randrange(6)
    if kind == 0:
        return data[:at] + bytes(chance.randrange(256) for _ in range(chance.randrange(1, 4))) + data[end:]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[end:]
    if kind == 3:
        return data[:end] + data[at:]
    return data[:at] + chance.choice(ODD) + data[at if kind == 4 else end :]


class Script:
    """What a response reads from: pieces, each at its time; then the end of the connection."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.stamped, self.waiting = True, False
        self.arrival_ns = self.read_ns = self.reads = self.bytes_read = 0
        self._pieces = iter(pieces)

    def send_all(self, data: bytes, timeout_s: float) -> None:
        """Take the request."""

    def read(self, skim: Skim | None = None) -> bytes:
        """The next piece, less what is skimmed."""
        for data in self._pieces:
            self.arrival_ns = self.read_ns = self.arrival_ns + GAP_NS
            self.reads += 1
            self.bytes_read += len(data)
            if rest := data[skim(data, len(data), self.arrival_ns, self.read_ns) if skim is not None else 0 :]:
                return rest
        return b""

    def shut_down(self) -> None:
        """Nothing to end."""


class Line:
    """A connection that answers its one request from a script."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.opened, self.connect_ns, self.held_open = 1, 0, True
        self._script = Script(pieces)

    def ensure_open(self) -> None:
        """It is."""

    def post(self, *_: Any, stall_timeout_s: float, total_timeout_s: float, **__: Any) -> ResponseStream:
        """The answer."""
        script: Any = self._script
        response = ResponseStream(script, stall_timeout_s, total_timeout_s, reused=False, give_back=lambda _: None)
        response.send(b"")
        return response


def records(count: int, seed: int) -> Iterator[RequestRecord]:
    """The records of so many mutated streams. Raises whatever the reader raises."""
    chance, forms = random.Random(seed), _forms()
    plain = RequestSettings("/x", {}, TIMEOUTS)
    kept = RequestSettings("/x", {}, TIMEOUTS, count_tokens=lambda text: len(text.encode()))
    tagged = RequestSettings("/x", {}, TIMEOUTS, reasoning_end="</think>")
    names = dict.fromkeys(("run_id", "block", "engine", "model", "cell", "api", "worker"), "x")
    numbers = dict.fromkeys(("user", "index", "t_intended", "t_send", "t_done", "wall_offset_ns"), 0)
    for number in range(count):
        record = RequestRecord(**names, **numbers, prompt_tokens_wanted=5, output_tokens_wanted=4)  # type: ignore[arg-type]
        line: Any = Line(mutated(forms, chance))
        exchange(line, b"{}", record, (kept, plain, tagged, plain)[number % 4])
        yield record


def main() -> None:
    """Read the command line, go through the streams, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started, kinds = time.perf_counter(), Counter[str]()
    for record in records(given.streams, given.seed):
        RequestRecord.from_dict(orjson.loads(orjson.dumps(record, list)))
        kinds[record.error or "ok"] += 1
    print(f"{given.streams:,d} streams, seed {given.seed}, {time.perf_counter() - started:.0f} s, nothing raised")
    for kind, count in kinds.most_common():
        print(f"{count:10,d}  {kind}")


if __name__ == "__main__":
    main()
