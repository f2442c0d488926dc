"""What the locustfiles here share: each user sends its requests one after another, and each leaves one record.

Runs in a peer's own environment, so it imports nothing of Bakeoff's.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import User, constant, events, task
from locust.exception import StopUser

JOB = json.loads(os.environ["BENCH_JOB"])
PROMPTS = [json.loads(line)["prompt"] for line in Path(JOB["prompts"]).read_text(encoding="utf-8").splitlines()]
RECORDS: list[dict[str, Any]] = []
_done: list[int] = []


class StreamingUser(User):
    """A user that sends its rounds of requests and then stops; the last one to do so ends the run."""

    abstract = True
    wait_time = constant(0)
    _users = 0

    def on_start(self) -> None:
        """Take a number."""
        self.number, self.sent = StreamingUser._users, 0
        StreamingUser._users += 1

    @task
    def next_request(self) -> None:
        """Send one request and keep its record, or stop. Times: seconds of `perf_counter`."""
        if self.sent == JOB["rounds"]:
            _done.append(self.number)
            if len(_done) == self.environment.runner.target_user_count:
                self.environment.runner.quit()
            raise StopUser
        prompt = PROMPTS[(self.number + self.sent * 37) % len(PROMPTS)]
        self.sent += 1
        request_id = f"{self.number}.{self.sent}"
        t_first = t_last = 0.0
        tokens = 0
        t_send = time.perf_counter()
        for text, told in self.answer({"X-Request-Id": request_id}, prompt):
            if text:
                t_last = time.perf_counter()
                t_first = t_first or t_last
            tokens = told or tokens
        times = {"t_send": t_send, "t_first": t_first, "t_last": t_last}
        RECORDS.append({"id": request_id, **times, "tokens": tokens})
        # As people tell Locust of it.
        self.environment.events.request.fire(
            request_type="TTFT", name="completion", response_time=1e3 * (t_first - t_send), response_length=0
        )

    def answer(self, headers: dict[str, str], prompt: str) -> Iterator[tuple[bool, int]]:
        """Send one request; yield, for each event as it comes, whether it has text and the tokens that it tells."""
        raise NotImplementedError


def body(prompt: str) -> dict[str, Any]:
    """The JSON of a request."""
    wanted = {"model": JOB["model"], "prompt": prompt, "max_tokens": JOB["tokens"], "ignore_eos": True}
    return {**wanted, "stream": True, "stream_options": {"include_usage": True}}


@events.quitting.add_listener
def write_records(**_: Any) -> None:
    """Write what was measured when all is over."""
    Path(JOB["records"]).write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
