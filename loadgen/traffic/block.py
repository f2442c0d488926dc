"""What a process sends while a block runs: its closed-loop users, or its share of an open loop. No Locust in it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

import gevent

from loadgen.record import ABORTED, RequestRecord
from loadgen.stream.exchange import exchange
from loadgen.stream.http_stream import Connection
from loadgen.traffic.arrivals import arrival_offsets_ns, share_of_worker
from loadgen.traffic.open_loop import ConnectionStock, Dispatcher
from loadgen.traffic.plan import BlockPlan

MAX_BACKOFF_S = 2.0
REQUEST_IDS_VARIABLE = "BAKEOFF_REQUEST_IDS"
"""Set to 1, a worker sends request ids whatever its plan says."""


class Traffic:
    """What the users of one process share: the block's plan, its prompts, and where records go."""

    def __init__(self, sink: Callable[[RequestRecord], None], *, worker: str = "local") -> None:
        self.sink = sink
        self.worker = worker
        self.plan: BlockPlan | None = None
        self.in_flight = 0
        self.events = 0
        """Content events read since the process started."""
        self.sent_records = 0
        """Records of the current block that went to the sink."""
        # Taken once: the monotonic clock is what is measured with, wall time only aligns workers.
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def begin(self, plan: BlockPlan) -> None:
        """Prepare for a block. Raises UserError when its prompts cannot be made, or it is not this worker's."""
        # What stands now stays: a full collection that walked it would stop the process for tens of milliseconds.
        gc.collect()
        gc.freeze()
        self.factory = plan.prompt_factory()
        self.plan = plan
        self.fields_json = plan.request_fields_json(plan.output_tokens)
        self.path = plan.endpoint.engine.paths[plan.api]
        self.check_output_length = plan.check_output_length and plan.endpoint.engine.exact_output
        self.headers = {"Accept": "text/event-stream"}
        if plan.endpoint.api_key:
            self.headers["Authorization"] = f"Bearer {plan.endpoint.api_key}"
        self.request_ids = plan.request_ids or os.environ.get(REQUEST_IDS_VARIABLE) == "1"
        self.count_tokens = _token_counter(plan.endpoint.tokenizer)
        self.sent_records = 0
        self._users = 0
        self._prompts = 0
        self.seat = plan.seat(self.worker)

    def next_user(self) -> int:
        """Number of a new user within this worker."""
        self._users += 1
        return self._users - 1

    def next_prompt(self) -> str:
        """JSON text of a prompt that no other request of the block has.

        The workers deal the numbers out by their seats, so that a block has the same prompts whoever they are.
        """
        number = self._prompts * len(self._plan().workers) + self.seat
        self._prompts += 1
        return self.factory.prompt(number)

    def new_connection(self) -> Connection:
        """A connection to the block's endpoint, not open yet."""
        plan = self._plan()
        return Connection(plan.endpoint.base_url, plan.timeouts.connect_s)

    def send_one(
        self,
        connection: Connection,
        *,
        user: int,
        index: int,
        output_tokens: int,
        prompt: str,
        prompt_tokens: int | None = None,
        due: int | None = None,
    ) -> RequestRecord:
        """Send one request and hand its record to the sink; `due` is when the schedule wants it (open loop).

        `prompt_tokens` are the prompt's where they are not the plan's.

        A GreenletExit passes through: the record then holds what was measured, as aborted.
        """
        plan = self._plan()
        fields = self.fields_json
        if output_tokens != plan.output_tokens:
            fields = plan.request_fields_json(output_tokens)
        body = plan.body(prompt, fields)
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
            wall_offset_ns=self.wall_offset_ns,
            prompt_tokens_wanted=plan.prompt_tokens if prompt_tokens is None else prompt_tokens,
            output_tokens_wanted=output_tokens,
        )
        headers = {**self.headers, "X-Request-Id": record.request_id} if self.request_ids else self.headers
        self.in_flight += 1
        try:
            exchange(
                connection,
                self.path,
                body,
                record,
                headers=headers,
                timeouts=plan.timeouts,
                keep_text=plan.keep_text,
                count_tokens=self.count_tokens,
                check_output_length=self.check_output_length,
                scheduled=due is not None,
            )
        except gevent.GreenletExit:
            # The block is over: what was timed of this request still counts for the window's throughput.
            record.error, record.error_detail = ABORTED, "ended by the load generator: the block was over"
            record.t_done = max(record.t_done, time.monotonic_ns())
            raise
        finally:
            self.in_flight -= 1
            self.events += record.events
            self.sent_records += 1
            self.sink(record)
        return record

    def dispatcher(self) -> Dispatcher:
        """This worker's share of the block's open loop."""
        plan = self._plan()
        arrivals = share_of_worker(
            arrival_offsets_ns(plan.arrival, plan.rate, plan.prompt_seed, plan.trace_ns, plan.step),
            self.seat,
            len(plan.workers),
        )
        prompts, outputs = plan.trace_prompts, plan.trace_outputs

        def send(connection: Connection, number: int, due: int) -> None:
            # The arrival's own number picks the prompt, so that both engines meet the same one at the same moment.
            self.send_one(
                connection,
                user=0,
                index=number,
                output_tokens=outputs[number] if outputs else plan.output_tokens,
                prompt=self.factory.prompt(number, prompts[number] if prompts else None),
                prompt_tokens=prompts[number] if prompts else None,
                due=due,
            )

        start = plan.start_wall_ns - self.wall_offset_ns
        return Dispatcher(arrivals, start, ConnectionStock(self.new_connection), send)

    def _plan(self) -> BlockPlan:
        if self.plan is None:
            raise RuntimeError("there is no block to send requests for")
        return self.plan


class ClosedLoopUser:
    """A simulated user: sends its next request when its last one has ended."""

    def __init__(self, traffic: Traffic) -> None:
        plan = traffic.plan
        if plan is None:  # the master refuses to start without a plan; this worker missed it
            raise RuntimeError("this worker was started without a block plan")
        self._traffic = traffic
        self.plan = plan
        self._number = traffic.next_user()
        self._index = 0
        self._failures = 0
        self._connection = traffic.new_connection()

    def send(self) -> None:
        """Send one request, and pause after a failure, so that a dead engine is not hammered."""
        traffic = self._traffic
        record = traffic.send_one(
            self._connection,
            user=self._number,
            index=self._index,
            output_tokens=self._output_tokens(),
            prompt=traffic.next_prompt(),
        )
        self._index += 1
        self._rest_after(record)

    def _rest_after(self, record: RequestRecord) -> None:
        """Pause after failures in a row."""
        self._failures = 0 if record.ok else self._failures + 1
        if self._failures:
            gevent.sleep(min(MAX_BACKOFF_S, 0.05 * 2**self._failures))

    def close(self) -> None:
        """Leave no connection behind."""
        self._connection.close()

    def _output_tokens(self) -> int:
        """Output length of the next request.

        All users start at once and answers are of equal length, so they would go on in lockstep, wave by wave.
        The first warm-up request is therefore cut to a different length for each user.
        """
        plan = self.plan
        if self._index or not plan.warmup_requests or plan.users < 2:
            return plan.output_tokens
        ordinal = self._number * len(plan.workers) + self._traffic.seat
        share = (ordinal % plan.users + 1) / plan.users
        return max(1, round(plan.output_tokens * share))


def _token_counter(tokenizer_file: str | None) -> Callable[[str], int] | None:
    if tokenizer_file is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
