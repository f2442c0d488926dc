"""The openai SDK under Locust."""

from __future__ import annotations

from benchmarks.client.peer_environment import Environment, PeerEnvironment
from benchmarks.client.peers.locust_fasthttp import LocustPeer


class OpenAISdk(LocustPeer):
    """One client that all users share."""

    name = "openai-sdk"
    title = "openai SDK under Locust"
    what = "gevent; the SDK's synchronous client, shared by all users; stamped when it hands over an event"
    packages = ("openai", "httpx2", "locust", "gevent")
    start_s = 5.0
    blast_rounds = 4
    locustfile = "openai_sdk.py"

    def environment(self) -> Environment:
        """Locust and openai."""
        return PeerEnvironment("openai-sdk", gigabytes=0.5)
