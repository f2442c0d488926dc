"""The routes of both personalities, and those of the truth log."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator import vllm_metrics
from simulator.answers import answer, logprobs_field, rated_prompt
from simulator.config import Config, Fault, parse_fault
from simulator.deviations import check_fields, tokens_before_stop, words_skipped
from simulator.engine import Engine, Job
from simulator.errors import BadRequestError, SimulatorError
from simulator.http import Connection, Request, error_body, response, stream_head
from simulator.plan import FaultPicker
from simulator.tokenizer import Tokenizer, prompt_text
from simulator.truth import RequestTruth, TruthLog
from simulator.vllm_metrics import VllmMetrics

DEFAULT_OUTPUT = {False: 16, True: 128}
NO_LIMIT = 1 << 31
Reply = tuple[int, bytes, str]
JSON = "application/json"


def _json(value: Any, status: int = 200) -> Reply:
    return status, json.dumps(value, separators=(",", ":")).encode(), JSON


def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def _count(body: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = body.get(name)
        if value is not None:
            if type(value) is not int or value < 1:
                raise BadRequestError(f"{name} must be a whole number above 0")
            return value
    return None


class Routes:
    """Answers one request: at once, or by a stream."""

    def __init__(self, cfg: Config, engine: Engine, log: TruthLog, metrics: VllmMetrics | None) -> None:
        self._cfg = cfg
        self._engine = engine
        self._log = log
        self._picker = FaultPicker(cfg)
        self._swaps = random.Random(cfg.seed + 2)
        self._tokenizer = Tokenizer(cfg.tokens)
        self._started = time.monotonic_ns()
        self._created = int(time.time())
        vllm = cfg.personality == "vllm"
        self._generate = {"/v1/chat/completions": True, "/v1/completions": False}
        self._get: dict[str, Callable[[Request], Reply]] = {
            "/health": lambda _: (200, b"", "text/plain"),
            ("/v1/models" if vllm else "/models"): self._models,
            "/truth": self._truth,
            "/truth/summary": lambda _: _json(self._when_idle().summary()),
        }
        self._post: dict[str, Callable[[Request], Reply]] = {"/truth/reset": self._reset}
        if metrics is not None:
            self._get["/metrics"] = lambda _: self._scrape(metrics)
        if vllm:
            self._get["/version"] = lambda _: _json({"version": "0.24.0-simulated"})
            self._get["/ping"] = self._get["/health"]
            self._post["/tokenize"] = self._tokenize
            self._post["/reset_prefix_cache"] = self._reset_prefixes

    def handle(self, conn: Connection, request: Request) -> None:
        """Answer a request, or begin a stream in `conn.stream`. Raises OSError: the client went away."""
        if request.method == "POST" and request.path in self._generate:
            self._generation(conn, request, chat=self._generate[request.path])
            return
        try:
            status, body, content_type = self._route(request)
        except BadRequestError as error:
            status, body, content_type = error.status, error_body(str(error), error.status), JSON
        self._reply(conn, request, status, body, content_type)

    def _route(self, request: Request) -> Reply:
        routes = {"GET": self._get, "HEAD": self._get, "POST": self._post}.get(request.method, {})
        handler = routes.get(request.path)
        if handler is None:
            known = request.path in self._get or request.path in self._post or request.path in self._generate
            status, detail = (405, "Method Not Allowed") if known else (404, "Not Found")
            return _json({"detail": detail}, status)
        return handler(request)

    def _reply(
        self, conn: Connection, request: Request, status: int, body: bytes, content_type: str = JSON, extra: str = ""
    ) -> None:
        data = response(status, body, content_type, keep_alive=request.keep_alive, extra=extra)
        if request.method == "HEAD":
            data = data[: len(data) - len(body)]
        conn.close_when_sent |= not request.keep_alive
        conn.write(data)

    def _generation(self, conn: Connection, request: Request, *, chat: bool) -> None:
        headers = request.headers
        truth = RequestTruth(
            number=len(self._log.requests) + 1,
            id=headers.get(b"x-request-id", b"").decode("latin-1"),
            api="chat" if chat else "completions",
            peer_port=conn.peer_port,
            t_accept=conn.t_accept,
            t_arrived=request.t_arrived,
            t_read=request.t_read,
        )
        self._log.requests.append(truth)
        try:
            if not chat and self._cfg.personality == "ksana":
                # At commit c451219 this route stumbles over an undefined name.
                raise BadRequestError("Internal Server Error", 500)
            job = self._job(_body(request), chat=chat)
            truth.prompt_tokens, truth.output_tokens = job.prompt_tokens, job.output_tokens
            self._engine.check(job)
            fault = self._fault(request, truth.number)
            if fault is not None:
                truth.fault = fault.kind
                if fault.kind == "http":
                    raise BadRequestError(f"simulated fault: status {fault.status}", fault.status)
        except BadRequestError as error:
            truth.outcome, truth.http_status = "http", error.status
            extra = "retry-after: 1\r\n" if error.status == 429 else ""
            body = error_body(str(error), error.status)
            if self._cfg.personality == "ksana" and error.status == 500 and not chat:
                self._reply(conn, request, 500, b"Internal Server Error", "text/plain; charset=utf-8")
            else:
                self._reply(conn, request, error.status, body, extra=extra)
            truth.t_end = time.monotonic_ns()
            return
        truth.http_status = 200
        conn.close_when_sent |= not request.keep_alive
        if job.stream:
            head = stream_head(self._log.verdict(), keep_alive=request.keep_alive)
        else:
            close = "" if request.keep_alive else "connection: close\r\n"
            verdict = self._log.verdict()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\nx-oracle: {verdict}\r\n{close}".encode()
        self._engine.start(conn, job, truth, head, fault)

    def _fault(self, request: Request, number: int) -> Fault | None:
        asked = request.headers.get(b"x-sim-fault")
        if asked is not None:
            try:
                return parse_fault(asked.decode("latin-1"))
            except SimulatorError as error:
                raise BadRequestError(str(error)) from None
        return self._picker.pick(number, (request.t_read - self._started) / 1e9, self._engine.open_streams)

    def _job(self, body: dict[str, Any], *, chat: bool) -> Job:
        if self._cfg.personality == "vllm" and body.get("model") not in (None, self._cfg.model):
            raise BadRequestError(f"The model `{body.get('model')}` does not exist.", 404)
        check_fields(self._cfg.answers, body)
        tokenizer, cached = self._tokenizer, self._cfg.prefix_caching.enabled or self._cfg.batching.prefix_caching
        if chat:
            prompt = tokenizer.count_chat(body.get("messages"))
            ids = tokenizer.chat_ids(body["messages"]) if cached else []
            wanted = _count(body, "max_completion_tokens", "max_tokens")
        else:
            prompt = tokenizer.count_prompt(body.get("prompt"))
            ids = tokenizer.prompt_ids(body["prompt"]) if cached else []
            wanted = _count(body, "max_tokens")
        output = min(wanted or DEFAULT_OUTPUT[chat], self._cfg.answers.most_tokens or NO_LIMIT)
        skip = words_skipped(self._cfg.answers, body) - tokenizer.around(chat=chat)
        reason = "length"
        eos = self._cfg.stream.eos_after
        if eos is not None and not body.get("ignore_eos"):
            eos = max(eos, _count(body, "min_tokens") or 0)
            if eos < output:
                output, reason = eos, "stop"
        until_stop = tokens_before_stop(self._cfg.answers, body, prompt + skip, output)
        if until_stop < output:
            output, reason = until_stop, "stop"
        if self._cfg.personality == "ksana":
            reason = "stop"  # Its answer also when max_tokens ended it.
        options = body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("include_usage"))
        job = Job(chat, bool(body.get("stream")), prompt, output, reason, asked, skip, ids)
        return self._prompted(job, body) if self._cfg.answers.text == "prompted" else job

    def _prompted(self, job: Job, body: dict[str, Any]) -> Job:
        """The same job with an answer that follows from the prompt's text."""
        cfg, chat = self._cfg.answers, job.chat
        text, began = prompt_text(body, chat=chat)
        others = self._engine.open_streams
        saying = answer(cfg, body, text, job.output_tokens, others=others, rng=self._swaps)
        prompt_logprobs = None
        if body.get("prompt_logprobs") is not None and cfg.logprobs:
            prompt_logprobs = rated_prompt(cfg, text, began, job.prompt_tokens)
        if saying.ends and not body.get("ignore_eos"):
            reason = "stop"
            job = replace(job, output_tokens=len(saying.tokens), reason=reason)
        return replace(
            job, saying=saying, logprobs=logprobs_field(saying, body, chat=chat), prompt_logprobs=prompt_logprobs
        )

    def _models(self, _: Request) -> Reply:
        model = {"id": self._cfg.model, "object": "model", "created": self._created, "root": self._cfg.model}
        model |= {"owned_by": self._cfg.personality, "parent": None, "max_model_len": self._cfg.max_model_len}
        return _json({"object": "list", "data": [model]})

    def _tokenize(self, request: Request) -> Reply:
        body = _body(request)
        if "messages" in body:
            tokens = self._tokenizer.chat_ids(body["messages"])
        elif isinstance(body.get("prompt"), str):
            tokens = self._tokenizer.encode(body["prompt"], special=bool(body.get("add_special_tokens", True)))
        else:
            raise BadRequestError("prompt must be text")
        return _json({"count": len(tokens), "max_model_len": self._cfg.max_model_len, "tokens": tokens})

    def _scrape(self, metrics: VllmMetrics) -> Reply:
        self._engine.account(most=1000)
        running, waiting, swapped, usage = self._engine.sizes()
        return 200, metrics.render(running, waiting + swapped, usage), vllm_metrics.CONTENT_TYPE

    def _when_idle(self) -> TruthLog:
        if self._engine.open_streams:
            raise BadRequestError(f"{self._engine.open_streams} streams are open: ask when none is", 409)
        return self._log

    def _truth(self, request: Request) -> Reply:
        log = self._when_idle()
        if "format=npz" in request.query.split("&"):
            return 200, log.npz(), "application/octet-stream"
        return 200, "".join(line + "\n" for line in log.lines()).encode(), "application/jsonl"

    def _reset_prefixes(self, _: Request) -> Reply:
        self._engine.reset_prefixes()
        return 200, b"", "text/plain"

    def _reset(self, _: Request) -> Reply:
        self._when_idle().clear()
        return _json({"requests": 0})
