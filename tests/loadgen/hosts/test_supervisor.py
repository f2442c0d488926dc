"""Engines under supervisord, where it does not answer as it should."""

from __future__ import annotations

import xmlrpc.client

import pytest
from supervisor.xmlrpc import Faults

from loadgen.errors import UserError
from loadgen.hosts import supervisor
from loadgen.hosts.stack_file import SupervisorStack


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (xmlrpc.client.Fault(Faults.SHUTDOWN_STATE, "SHUTDOWN_STATE"), "going down: somebody ran `make down`"),
        (xmlrpc.client.ProtocolError("x", 500, "gone", {}), "does not answer"),
        (ConnectionRefusedError(), "does not answer"),
    ],
    ids=["going down", "half an answer", "gone"],
)
def test_a_stack_that_goes_down_is_told_in_words(tmp_path, monkeypatch, raised, said):
    class Proxy:
        def __init__(self, *_: object, **__: object) -> None:
            self.supervisor = self

        def getProcessInfo(self, _: str) -> None:
            raise raised

    monkeypatch.setattr(supervisor.xmlrpc.client, "ServerProxy", Proxy)
    host = supervisor.SupervisorHost(SupervisorStack(socket=tmp_path / "s", urls={}, engines={}))
    with pytest.raises(UserError, match=said):
        host.state_of("a")
