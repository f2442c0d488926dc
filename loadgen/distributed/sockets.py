"""Locust's sockets, for those only who know the stack's secret: ZeroMQ's CURVE encrypts them and proves it.

Locust's own messages stay as they are. A stranger, who cannot shake hands, is counted and gets no word out or in; and
nothing that an invited worker sends, whatever its bytes, ends the loop in which the master receives.

CURVE (https://rfc.zeromq.org/spec/26/) has a client know the server's public key beforehand, and never sends it. Here
it is derived from the secret and kept like one, so a handshake is the proof: a list of clients' keys proves no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import gevent
import zmq
import zmq.green
from locust import runners
from locust.exception import RPCError
from locust.rpc import Message, zmqrpc
from zmq.utils.monitor import recv_monitor_message

from loadgen.distributed.messages import BLOCK_END_MESSAGE, PROBLEM_MESSAGE, PULSE_MESSAGE, RECORDS_MESSAGE
from loadgen.distributed.secret import master_keys, read_secret
from loadgen.errors import UserError

logger = logging.getLogger(__name__)

MAX_FRAME = 32 << 20
"""Bytes of a message to the master; a worker sends its records in smaller ones."""
HANDSHAKE_LIMIT_MS = 5000
FAILED_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
STRANGERS, MALFORMED = "strangers", "malformed"
LOOP_ENDED = 70
"""Exit code of a master that hears no more: EX_SOFTWARE of sysexits.h."""
STATES = {
    runners.STATE_INIT,
    runners.STATE_SPAWNING,
    runners.STATE_RUNNING,
    runners.STATE_CLEANUP,
    runners.STATE_STOPPING,
    runners.STATE_STOPPED,
    runners.STATE_MISSING,
}


def _secret() -> bytes:
    try:
        return read_secret()
    except UserError as error:
        raise SystemExit(str(error)) from None


class Server(zmqrpc.Server):
    """The master's socket."""

    refused: ClassVar[Counter[str]] = Counter()
    """What was not let in, since the process started: a reset makes a new socket."""

    def __init__(self, host: str, port: int) -> None:
        zmqrpc.BaseSocket.__init__(self, zmq.ROUTER, self.ipv4_only(host, port))
        public, secret = master_keys(_secret())
        self.socket.curve_server = True
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_LIMIT_MS)
        monitor = self.socket.get_monitor_socket(FAILED_HANDSHAKES)
        self._watching = gevent.spawn(self._count_strangers, monitor)
        try:
            self.port = self.socket.bind_to_random_port(f"tcp://{host}") if port == 0 else port
            if port:
                self.socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from None

    def recv_from_client(self) -> tuple[str, Message]:
        """The next message that a worker may send; what is none is counted and left out.

        Raises:
            RPCError: the socket is broken.
        """
        while True:
            try:
                frames = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError(f"ZMQ network broken: {error}") from error
            message = read_frames(frames)
            if message is not None:
                return message.node_id, message
            refuse(MALFORMED, "A frame that is no message of a worker's")

    def close(self, linger: int | None = None) -> None:
        """Close it, and its monitor."""
        self._watching.kill()
        self.socket.disable_monitor()
        self.socket.close(linger=linger)

    def _count_strangers(self, monitor: Any) -> None:
        with contextlib.suppress(zmq.ZMQError):  # it was closed
            while True:
                recv_monitor_message(monitor)
                refuse(STRANGERS, "A connection of somebody who does not know this stack's secret")


class Client(zmqrpc.Client):
    """A worker's socket."""

    def __init__(self, host: str, port: int, identity: str) -> None:
        zmqrpc.BaseSocket.__init__(self, zmq.DEALER, self.ipv4_only(host, port))
        self.socket.curve_serverkey = master_keys(_secret())[0]
        self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
        self.socket.setsockopt(zmq.IDENTITY, identity.encode())
        self.socket.connect(f"tcp://{host}:{port}")


def refuse(kind: str, what: str) -> None:
    """Count what was not let in. The log gets the 1st, 10th, 100th and so on: fast knocking must not fill the disk."""
    Server.refused[kind] += 1
    count = Server.refused[kind]
    if str(count).strip("0") == "1":
        logger.warning("%s was refused at the master's port (%d so far)", what, count)


def read_frames(frames: list[bytes]) -> Message | None:
    """The message that a worker's frames (its identity, then the message) hold, or None. Never raises."""
    try:
        identity, body = frames
        message = Message.unserialize(body)
        fits = message.node_id == identity.decode() and SHAPES[message.type](message.data)
    except Exception:  # any bytes may come, and msgpack, Locust's decoder and the shapes each raise what they like
        return None
    return message if fits else None


def _users(data: Any) -> bool:
    return all(isinstance(name, str) and _count(number) for name, number in data["user_classes_count"].items())


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _heartbeat(data: Any) -> bool:
    figures = (data["current_cpu_usage"], data.get("current_memory_usage", 0))
    return data["state"] in STATES and all(isinstance(figure, int | float) for figure in figures)


def _report(data: Any) -> bool:
    return isinstance(data["stats"], list) and isinstance(data["errors"], dict) and _users(data)


def _mapping(data: Any) -> bool:
    return isinstance(data, dict)


def _anything(data: Any) -> bool:
    return True


SHAPES: dict[str, Callable[[Any], bool]] = {
    "client_ready": lambda data: isinstance(data, str) or data == -1,
    "heartbeat": _heartbeat,
    "stats": _report,
    "spawning": _anything,
    "spawning_complete": _users,
    "client_stopped": _anything,
    "quit": _anything,
    "exception": lambda data: isinstance(data["msg"], str) and isinstance(data["traceback"], str),
    "logs": lambda data: isinstance(data["worker_id"], str) and isinstance(data["logs"], list),
    **dict.fromkeys((RECORDS_MESSAGE, PULSE_MESSAGE, BLOCK_END_MESSAGE, PROBLEM_MESSAGE), _mapping),
}
"""By a message's type, whether its data are such that Locust and we can work with them. Other types are not taken."""


def install() -> None:
    """Have Locust make these sockets, and its master go on whatever a message does to it. To be called once."""
    for name, socket in (("Server", Server), ("Client", Client)):
        setattr(zmqrpc, name, socket)
    runner = runners.MasterRunner
    handle, listen = runner.handle_message, runner.client_listener

    def handle_message(self: runners.MasterRunner, client_id: str, msg: Message) -> None:
        try:
            handle(self, client_id, msg)
        except Exception:
            refuse(MALFORMED, f"A message ({msg.type}) that the master stumbled over")
            logger.debug("The master stumbled over a message", exc_info=True)

    def client_listener(self: runners.MasterRunner) -> None:
        try:
            listen(self)
        except Exception:
            # A master that hears no more would go on as if all workers were lost.
            logger.critical("The master cannot receive any more and ends, to be started anew", exc_info=True)
            os._exit(LOOP_ENDED)

    for name, function in (("handle_message", handle_message), ("client_listener", client_listener)):
        setattr(runner, name, function)
