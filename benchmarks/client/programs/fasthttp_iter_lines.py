"""FastHttpUser with Locust's own helper for streams, `self.client.iter_lines`."""

import json
import time

from locust import FastHttpUser
from streams import StreamingUser, body


class IterLinesUser(StreamingUser, FastHttpUser):
    """`iter_lines` reads 1,024 bytes at a time, and waits for them."""

    def completion(self, request_id: str, prompt: str) -> None:
        """One request."""
        t_first = t_last = 0.0
        tokens = 0
        headers = {"X-Request-Id": request_id}
        t_send = time.perf_counter()
        for line in self.client.iter_lines("/v1/completions", method="POST", json=body(prompt), headers=headers):
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if event["choices"] and event["choices"][0]["text"]:
                t_last = time.perf_counter()
                t_first = t_first or t_last
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        self.finished(request_id, t_send, t_first, t_last, tokens)
