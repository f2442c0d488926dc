"""The openai SDK in a Locust user. Locust has patched the sockets, so its synchronous client yields to other users."""

from collections.abc import Iterator

from openai import OpenAI
from streams import StreamingUser, body


class SdkUser(StreamingUser):
    """All users share one client, as the SDK's own documentation asks for."""

    client: OpenAI

    def on_start(self) -> None:
        """Make the client, if this is the first user."""
        super().on_start()
        if not hasattr(SdkUser, "client"):
            SdkUser.client = OpenAI(base_url=f"{self.host}/v1", api_key="none", max_retries=0)

    def answer(self, headers: dict[str, str], prompt: str) -> Iterator[tuple[bool, int]]:
        """The events of one request."""
        fields = body(prompt)
        extra = {"ignore_eos": fields.pop("ignore_eos")}
        for event in SdkUser.client.completions.create(**fields, extra_body=extra, extra_headers=headers):
            tokens = event.usage.completion_tokens if event.usage else 0
            yield bool(event.choices and event.choices[0].text), tokens
