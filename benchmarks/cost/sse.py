"""Cost of splitting and decoding a stream, per event, beside `json.loads` on every event, in one run.

`python -m benchmarks.cost.sse [--events N] [--read-bytes N]` prints events per second of one core. The stream
is made in memory and cut into reads, so this is the cost of `loadgen.stream.sse` alone: no socket, no HTTP.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from loadgen.stream.sse import EventDecoder, SSESplitter

WORDS = (" the", " plain", " quick\\n", " Axios", '\\"quoted\\"', " 北京", " function", "()", " { ", " over")
SHAPES = {
    "vllm chat": '{{"id":"chatcmpl-b215667cdd997bf4","object":"chat.completion.chunk","created":1795352296,"model":"m",'
    '"choices":[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}]}}',
    "ksana chat": '{{"id": "chatcmpl-8d154f551c1f4a38", "object": "chat.completion.chunk", "created": 1795352121, '
    '"model": "model", "choices": [{{"index": 0, "delta": {{"content": "{text}"}}, "finish_reason": null, '
    '"logprobs": null}}]}}',
    "llama.cpp completion": '{{"choices":[{{"text":"{text}","index":0,"logprobs":null,"finish_reason":null}}],'
    '"created":1795352296,"model":"m","system_fingerprint":"b1","object":"text_completion","id":"chatcmpl-1"}}',
}


def stream_of(shape: str, events: int, read_bytes: int) -> list[bytes]:
    """The bytes of a stream of `events` events, cut into reads of `read_bytes` (0: one event a read)."""
    parts = [f"data: {shape.format(text=WORDS[i % len(WORDS)])}\n\n".encode() for i in range(events)]
    if not read_bytes:
        return parts
    body = b"".join(parts)
    return [body[i : i + read_bytes] for i in range(0, len(body), read_bytes)]


def split_and_decode(reads: list[bytes]) -> int:
    """Content events, as the load generator counts them."""
    splitter, decoder, content = SSESplitter(), EventDecoder(), 0
    for data in reads:
        for payload in splitter.feed(data):
            content += decoder.decode(payload).content
    return content


def split_and_load(reads: list[bytes]) -> int:
    """Content events, with JSON decoded for each."""
    splitter, content = SSESplitter(), 0
    for data in reads:
        for payload in splitter.feed(data):
            choice = json.loads(payload)["choices"][0]
            content += bool(choice.get("text") or choice["delta"]["content"])
    return content


def rate(count: Callable[[list[bytes]], int], reads: list[bytes], events: int) -> float:
    """Events per core-second: the median of five passes, by the process's CPU time."""
    rates = []
    for _ in range(5):
        started = time.process_time()
        counted = count(reads)
        spent = time.process_time() - started
        if counted != events:
            raise SystemExit(f"counted {counted} content events of {events}")
        rates.append(events / spent)
    return statistics.median(rates)


def main() -> None:
    """Print one line a stream shape and read size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--read-bytes", type=int, nargs="*", default=[0, 4096, 32768])
    options = parser.parse_args()
    print(f"{'stream':22}{'read bytes':>12}{'events/core-s':>16}{'with json.loads':>18}{'ratio':>8}")
    for name, shape in SHAPES.items():
        for read_bytes in options.read_bytes:
            reads = stream_of(shape, options.events, read_bytes)
            ours = rate(split_and_decode, reads, options.events)
            loads = rate(split_and_load, reads, options.events)
            size = str(read_bytes) if read_bytes else "one event"
            print(f"{name:22}{size:>12}{ours:>16,.0f}{loads:>18,.0f}{ours / loads:>8.1f}")


if __name__ == "__main__":
    main()
