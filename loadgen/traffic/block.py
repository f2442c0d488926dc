"""What a process sends while a block runs: closed-loop users, its share of an open loop, batches. No Locust in it."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable

import gevent

from loadgen.endpoints.tokenizer import ModelTokenizer
from loadgen.engines import GENERIC
from loadgen.record import ErrorKind, RequestRecord
from loadgen.stream.exchange import RequestSettings, exchange
from loadgen.stream.http_stream import Connection, default_ssl_context
from loadgen.stream.kernel_time import sample_offset_ns
from loadgen.traffic.arrivals import arrival_offsets_ns, share_of_worker
from loadgen.traffic.batch import BatchSender, Gate, backoff_s
from loadgen.traffic.open_loop import ConnectionStock, Dispatcher, wait_until
from loadgen.traffic.plan import LOCAL, BlockPlan

REQUEST_IDS_VARIABLE = "BAKEOFF_REQUEST_IDS"
"""Set to 1, a worker sends request ids whatever its plan says."""
WALL_OFFSET_NS = sample_offset_ns()
"""Taken once: the monotonic clock is what is measured with, wall time only aligns workers."""


class Traffic:
    """One block's traffic in one process: what its users share, and where records go."""

    def __init__(self, plan: BlockPlan, sink: Callable[[RequestRecord], None], worker: str = LOCAL) -> None:
        """Prepare for a block. Raises UserError when its prompts cannot be made, or it is not this worker's."""
        # What stands now stays: a full collection that walked it would stop the process for tens of milliseconds.
        gc.collect()
        gc.freeze()
        self.plan = plan
        self.worker = worker
        self.seat = plan.seat(worker)
        self.factory = plan.prompt_factory()
        self.in_flight = 0
        self.events = 0
        """Content events read."""
        self.sent_records = 0
        """Records that went to the sink."""
        self._sink = sink
        self._users = itertools.count()
        self._prompts = itertools.count(self.seat, len(plan.workers))
        endpoint = plan.endpoint
        self._tls = None
        if endpoint.base_url.startswith("https:"):
            self._tls = default_ssl_context()
            endpoint.needs.trust(self._tls)
        self._settings = RequestSettings(
            endpoint.route(),
            {"Accept": "text/event-stream", **endpoint.headers()},
            plan.timeouts,
            request_ids=plan.request_ids or os.environ.get(REQUEST_IDS_VARIABLE) == "1",
            keep_text=plan.keep_text,
            sends_all=endpoint.kind != GENERIC,
            count_tokens=ModelTokenizer(endpoint.tokenizer).count if endpoint.tokenizer else None,
            reasoning_end=endpoint.needs.reasoning_end or plan.reasoning_end,
            allow_short_output=plan.allow_short_output,
        )
        self._fields_json = plan.request_fields_json(plan.cell.output_tokens)

    def wait_to_begin(self) -> None:
        """Return when the block begins: one that runs together with others begins at the instant that they share."""
        if self.plan.begin_wall_ns:
            wait_until(self.plan.begin_wall_ns - WALL_OFFSET_NS)

    def next_user(self) -> int:
        """Number of a new user within this worker."""
        return next(self._users)

    def ordinal(self, user: int) -> int:
        """Number of a user within the block: the same users in the same order whatever the number of workers."""
        return user * len(self.plan.workers) + self.seat

    def next_prompt(self) -> str:
        """JSON text of the next prompt, which no other request of the block has unless `prefixes` make them equal.

        The workers deal the numbers out by their seats, so that a block has the same prompts whoever they are.
        """
        return self.prompt(next(self._prompts))

    def prompt(self, number: int, tokens: int | None = None) -> str:
        """JSON text of the block's prompt `number`, with its prefix where the cell has such."""
        prefixes = self.plan.cell.prefixes
        return self.factory.prompt(number, tokens, prefixes.which(number) if prefixes is not None else None)

    def new_connection(self) -> Connection:
        """A connection to the block's endpoint, not open yet."""
        return Connection(self.plan.endpoint.base_url, self.plan.timeouts.connect_s, self._tls)

    def send_one(
        self,
        connection: Connection,
        prompt: str,
        *,
        user: int,
        index: int,
        lengths: tuple[int, int],
        due: int | None = None,
        gate: Gate | None = None,
    ) -> RequestRecord:
        """Send one request and hand its record to the sink.

        A GreenletExit passes through: the record then holds what was measured, as aborted.

        Args:
            connection: to send it on.
            prompt: as JSON text.
            user: who sends it, by its number within this worker.
            index: its position in the user's sequence, or its arrival's number.
            lengths: tokens of the prompt, and of the answer that is asked for.
            due: when the schedule wants it, monotonic ns; None for now.
            gate: where it waits for the others of its batch, ready to be written.
        """
        plan = self.plan
        prompt_tokens, output_tokens = lengths
        same = output_tokens == plan.cell.output_tokens
        body = plan.body(prompt, self._fields_json if same else plan.request_fields_json(output_tokens))
        now = time.monotonic_ns()
        record = RequestRecord(
            run_id=plan.run_id,
            block=plan.block,
            engine=plan.endpoint.name,
            model=plan.endpoint.model,
            cell=plan.cell.id,
            api=plan.api,
            worker=self.worker,
            user=user,
            index=index,
            t_intended=now if due is None else due,
            t_send=now,
            t_done=now,
            wall_offset_ns=WALL_OFFSET_NS,
            prompt_tokens_wanted=prompt_tokens,
            output_tokens_wanted=output_tokens,
        )
        self.in_flight += 1
        try:
            ready = gate.wait if gate is not None else None
            exchange(connection, body, record, self._settings, scheduled=due is not None, ready=ready)
        except gevent.GreenletExit:
            # The block is over: what was timed of this request still counts for the window's throughput.
            record.error, record.error_detail = ErrorKind.ABORTED, "ended by the load generator: the block was over"
            record.t_done = max(record.t_done, time.monotonic_ns())
            raise
        finally:
            if gate is not None and gate.opened_ns is not None:
                record.t_intended = min(gate.opened_ns, record.t_send)
            self.in_flight -= 1
            self.events += record.events
            self.sent_records += 1
            self._sink(record)
        return record

    def sender(self, start_ns: int) -> Dispatcher | BatchSender | None:
        """What sends this process's part of an open loop or of batches; None where users or other workers do.

        An open loop's schedule starts at `start_ns` of the monotonic clock.
        """
        if self.plan.cell.open_loop:
            return self.dispatcher(start_ns)
        return self.batch_sender() if self.plan.cell.batch else None

    def dispatcher(self, start_ns: int) -> Dispatcher:
        """This worker's share of the block's open loop, whose schedule starts at `start_ns` of the monotonic clock."""
        plan, trace = self.plan, self.plan.trace
        offsets = arrival_offsets_ns(
            plan.arrival, plan.cell.rate, plan.seed, trace.arrivals_ns if trace else (), plan.cell.step
        )

        def send(connection: Connection, number: int, due: int) -> None:
            # The arrival's own number picks the prompt, so that both engines meet the same one at the same moment.
            lengths = plan.lengths(number)
            prompt = self.prompt(plan.prompt_number(number), lengths[0])
            self.send_one(connection, prompt, user=0, index=number, lengths=lengths, due=due)

        arrivals = share_of_worker(offsets, self.seat, len(plan.workers))
        return Dispatcher(arrivals, start_ns, ConnectionStock(self.new_connection), send)

    def batch_sender(self) -> BatchSender | None:
        """What sends the block's batches; None where that is another worker's part.

        One worker sends them all: then it is one clock that they are sent and timed by, and neither a difference
        between clocks nor a message's delay spreads a batch.
        """
        plan, batch = self.plan, self.plan.cell.batch
        if self.seat:
            return None

        def send(connection: Connection, number: int, place: int, gate: Gate) -> bool:
            prompt = self.prompt(number * batch + place)
            lengths = (plan.cell.prompt_tokens, plan.cell.output_tokens)
            return self.send_one(connection, prompt, user=place, index=number, lengths=lengths, gate=gate).ok

        wanted = None if plan.requests is None else plan.warmup_requests + plan.requests // batch
        return BatchSender(batch, wanted, self.new_connection, send)


class ClosedLoopUser:
    """A simulated user: sends its next request when its last one has ended."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.plan = traffic.plan
        self._number = traffic.next_user()
        self._ordinal = traffic.ordinal(self._number)
        self._index = 0
        self._failures = 0
        self._connection = traffic.new_connection()

    def send(self) -> None:
        """Send one request, and pause after a failure, so that a dead engine is not hammered."""
        self._send(self._traffic.next_prompt(), self.plan.cell.prompt_tokens)

    def _send(self, prompt: str, prompt_tokens: int, due: int | None = None) -> None:
        lengths = (prompt_tokens, self._output_tokens())
        record = self._traffic.send_one(
            self._connection, prompt, user=self._number, index=self._index, lengths=lengths, due=due
        )
        self._index += 1
        self._failures = 0 if record.ok else self._failures + 1
        if self._failures:
            gevent.sleep(backoff_s(self._failures))

    def close(self) -> None:
        """Leave no connection behind."""
        self._connection.close()

    def _output_tokens(self) -> int:
        """Output length of the next request.

        All users start at once and answers are of equal length, so they would go on in lockstep, wave by wave.
        The first warm-up request is therefore cut to a different length for each user.
        """
        tokens, users = self.plan.cell.output_tokens, self.plan.cell.concurrency
        if self._index or not self.plan.warmup_requests or users < 2:
            return tokens
        return max(1, round(tokens * (self._ordinal % users + 1) / users))
