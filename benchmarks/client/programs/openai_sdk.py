"""The openai SDK in a Locust user. Locust has patched the sockets, so its synchronous client yields to other users."""

import time

import streams
from openai import OpenAI
from streams import StreamingUser


class SdkUser(StreamingUser):
    """All users share one client, as the SDK's own documentation asks for."""

    client: OpenAI

    def on_start(self) -> None:
        """Make the client, if this is the first user."""
        super().on_start()
        if not hasattr(SdkUser, "client"):
            SdkUser.client = OpenAI(base_url=f"{self.host}/v1", api_key="none", max_retries=0)

    def completion(self, request_id: str, prompt: str) -> None:
        """One request."""
        t_first = t_last = 0.0
        tokens = 0
        t_send = time.perf_counter()
        stream = SdkUser.client.completions.create(
            model=streams.JOB["model"],
            prompt=prompt,
            max_tokens=streams.JOB["tokens"],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
            extra_headers={"X-Request-Id": request_id},
        )
        for event in stream:
            if event.choices and event.choices[0].text:
                t_last = time.perf_counter()
                t_first = t_first or t_last
            if event.usage:
                tokens = event.usage.completion_tokens
        self.finished(request_id, t_send, t_first, t_last, tokens)
