"""Plain FastHttpUser, in the two ways that people read a stream with it; the command line names one of the classes."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from locust import FastHttpUser
from streams import StreamingUser, body

PATH = "/v1/completions"


def events(lines: Iterable[Any], mark: str | bytes) -> Iterator[tuple[bool, int]]:
    """Whether each event has text, and the tokens that it tells."""
    for line in lines:
        if line.startswith(mark):
            event = json.loads(line[len(mark) - 1 :])
            usage = event.get("usage")
            yield bool(event["choices"] and event["choices"][0]["text"]), usage["completion_tokens"] if usage else 0


class ReadlineUser(StreamingUser, FastHttpUser):
    """`FastResponse.stream` is geventhttpclient's response, whose `readline` returns as soon as a line is there."""

    def answer(self, headers: dict[str, str], prompt: str) -> Iterator[tuple[bool, int]]:
        """The events of one request."""
        options: dict[str, Any] = {"headers": headers, "stream": True, "catch_response": True}
        with self.client.post(PATH, json=body(prompt), **options) as response:
            yield from events(iter(lambda: response.stream.readline(b"\n"), b""), b"data: {")
            response.success()


class IterLinesUser(StreamingUser, FastHttpUser):
    """Locust's own helper, `iter_lines`, reads 1,024 bytes at a time, and waits for them."""

    def answer(self, headers: dict[str, str], prompt: str) -> Iterator[tuple[bool, int]]:
        """The events of one request."""
        return events(self.client.iter_lines(PATH, method="POST", json=body(prompt), headers=headers), "data: {")
