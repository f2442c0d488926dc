"""FastHttpUser with `stream=True`, reading lines from the underlying response as they come."""

import json
import time

from locust import FastHttpUser
from streams import StreamingUser, body


class ReadlineUser(StreamingUser, FastHttpUser):
    """`FastResponse.stream` is geventhttpclient's response, whose `readline` returns as soon as a line is there."""

    def completion(self, request_id: str, prompt: str) -> None:
        """One request."""
        t_first = t_last = 0.0
        tokens = 0
        headers = {"X-Request-Id": request_id}
        t_send = time.perf_counter()
        with self.client.post(
            "/v1/completions", json=body(prompt), headers=headers, stream=True, catch_response=True
        ) as response:
            while line := response.stream.readline(b"\n"):
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event["choices"] and event["choices"][0]["text"]:
                    t_last = time.perf_counter()
                    t_first = t_first or t_last
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
            response.success()
        self.finished(request_id, t_send, t_first, t_last, tokens)
