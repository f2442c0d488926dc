"""Bakeoff's part of Locust's web UI: an extra tab, `/metrics`, the block's state, and a guard on who may post."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from locust.web import WebUI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import TypeAdapter, ValidationError

from loadgen.contention.reading import Contention
from loadgen.distributed.form import OwnFields
from loadgen.distributed.master import Master
from loadgen.distributed.messages import CONTENTION_FIELD, PLAN_OPTION, REQUEST_FIELD
from loadgen.distributed.planner import read_form
from loadgen.distributed.users import StreamingUser
from loadgen.errors import UserError
from loadgen.machine import package_versions
from loadgen.metrics.summary import CellSummary
from loadgen.scenario.cell import read_cell
from loadgen.traffic.plan import BlockPlan, BlockRequest

TAB = "bakeoff"
# On a phone only the first ones are in sight.
COLUMNS = (
    ("name", "Engine"),
    ("cell", "Cell (prompt-output-load)"),
    ("load", "Load"),
    ("ttft_p50", "TTFT p50 (ms)"),
    ("ttft_p95", "TTFT p95 (ms)"),
    ("tpot_mean", "TPOT mean (ms)"),
    ("tpot_p95", "TPOT p95 (ms)"),
    ("output_tokens_per_s", "Output tokens/s"),
    ("requests_per_s", "Requests/s"),
    ("requests", "Measured"),
    ("errors", "Errors"),
    ("client", "Load generator"),
    ("machine", "Machine"),
    ("run", "Run"),
)
FIELDS = {
    *("user_count", "spawn_rate", "host", "run_time", "user_classes", "shape_class", "profile", REQUEST_FIELD),
    *OwnFields.model_fields,
}
"""Of the form that starts a test."""
WARMING_UP = "warming up"
"""In place of how many requests were measured, where that is still to begin."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def install(web_ui: WebUI, master: Master) -> None:
    """Add everything to the web UI of a master."""
    app = web_ui.app
    if app is None:
        raise TypeError("this web UI has no Flask application")
    # The form shows its fields in the order in which the page gets them.
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    _guard(app, str(web_ui.host or ""))
    _plan_before_swarm(app, master)
    _add_tab(web_ui, app, master)
    registry = CollectorRegistry()
    registry.register(master.metrics)

    @app.route("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.route("/bakeoff/setup")
    def setup() -> Response:
        return jsonify(
            {
                "runs_dir": str(master.runs_dir.resolve()),
                "engines": master.planner.names(),
                "packages": package_versions(),
            }
        )

    @app.route("/bakeoff/workers")
    def workers() -> Response:
        clients = getattr(master.environment.runner, "clients", {})
        return jsonify({client.id: client.state for client in clients.values()})

    @app.route("/bakeoff/contention", methods=["POST"])
    def contention() -> Response:
        try:
            reading = TypeAdapter(Contention).validate_json(request.form[CONTENTION_FIELD])
        except ValidationError:
            return _refusal("That is no reading of a machine.")
        master.collector.take_contention(request.form.get("run_id", ""), request.form.get("block", ""), reading)
        return jsonify({})

    @app.route("/bakeoff/block")
    def block() -> Response:
        return jsonify(master.status().model_dump(mode="json"))


def _guard(app: Flask, bound_to: str) -> None:
    """Refuse what a foreign web page could send through a visitor's browser.

    Locust allows every origin on every route. A page elsewhere may neither post here (Origin is of another host)
    nor read from here (no Access-Control-Allow-Origin), nor reach us under a name of its own that it has pointed
    at this machine (Host is then that name).
    """
    allowed = {*LOCAL_NAMES, bound_to}

    @app.before_request
    def refuse() -> Response | None:
        try:
            host = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            host = request.host
        bound_to_all = bound_to in ("", "0.0.0.0", "::", "*")  # noqa: S104
        if host not in allowed and not bound_to_all:
            return _refusal(f"This server does not answer under the name {host!r}.")
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return _refusal("Cross-origin requests are refused.")
        if origin is None and site not in (None, "same-origin", "none"):
            return _refusal("Cross-site requests are refused.")
        return None

    app.wsgi_app = _same_origin_only(app.wsgi_app)  # type: ignore[method-assign, assignment]


def _refusal(text: str) -> Response:
    return Response(text + "\n", status=403, content_type="text/plain; charset=utf-8")


Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _same_origin_only(inner: Wsgi) -> Wsgi:
    """Wrap a WSGI application: no Access-Control-* header leaves it, and no other site may frame its pages.

    Below Flask, since Locust's CORS extension was installed first and so has the last word within it.
    """

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
            return start_response(status, [*kept, ("X-Frame-Options", "SAMEORIGIN")], *rest)

        return inner(environ, start)

    return application


def _plan_before_swarm(app: Flask, master: Master) -> None:
    """Check a submitted form before Locust acts on it, and answer with what is wrong in Locust's own form."""

    @app.before_request
    def check() -> Response | None:
        if request.path != "/swarm" or request.method != "POST":
            return None
        options = master.environment.parsed_options
        form = request.form
        try:
            # Locust takes any field for the option of that name: files that it writes, and the plan that is made here.
            if wrong := sorted(set(form) & set(vars(options) if options else ()) - FIELDS | set(form) & {PLAN_OPTION}):
                raise UserError(f"{wrong[0]}: there is no such field.")
            if form.get("host", "") not in ("", StreamingUser.host):
                raise UserError("Host: leave it as it was. What is tested is chosen as Engine, in Custom parameters.")
            if REQUEST_FIELD in form:
                wanted = BlockRequest.from_json(form[REQUEST_FIELD])
            else:  # by a person; fields that a program leaves out are as they were last
                wanted = read_form({**(vars(options) if options else {}), "run_time": "", **form.to_dict()})
            master.prepare(wanted)
        except (UserError, ValueError) as error:
            return jsonify({"success": False, "message": str(error), "host": master.environment.host})
        return None


def _add_tab(web_ui: WebUI, app: Flask, master: Master) -> None:
    structure = [{"key": key, "title": title} for key, title in COLUMNS]
    web_ui.template_args["extended_tabs"] = [{"title": "Bake-off", "key": TAB}]
    web_ui.template_args["extended_tables"] = [{"key": TAB, "structure": structure}]

    @app.after_request
    def extend(response: Response) -> Response:
        if request.path != "/stats/requests" or response.status_code != 200:
            return response
        try:
            body = json.loads(response.get_data())
        except ValueError:
            return response
        body["extended_stats"] = [{"key": TAB, "data": rows(master)}]
        response.set_data(json.dumps(body))
        return response


def rows(master: Master) -> list[dict[str, Any]]:
    """Rows of the tab, the block that runs (or ran last) first."""
    collector = master.collector
    found = []
    current = None
    if collector.block is not None:
        plan: BlockPlan = collector.block.plan
        current = (plan.run_id, plan.endpoint.name, plan.cell.id)
        verdict = collector.block.verdict
        limited = verdict.limited if verdict is not None else None
        row = _row(*current, collector.block.summary(), limited, collector.contention.get(current))
        status = master.status()
        found.append(row if status.idle or status.warmed_up else row | {"requests": WARMING_UP})
    for key, (summary, limited) in reversed(collector.finished.items()):
        if key != current:
            found.append(_row(*key, summary, limited, collector.contention.get(key)))
    return found


def _row(
    run_id: str, engine: str, cell: str, summary: CellSummary, limited: bool | None, machine: Contention | None
) -> dict[str, Any]:
    def show(value: float | None, digits: int = 1) -> float | str:
        # A number, not its text: the table sorts by it.
        return "-" if value is None else round(value, digits)

    known = read_cell(cell)
    return {
        "run": run_id,
        "name": engine,
        "safe_name": engine,
        "cell": cell,
        "load": known.load_text if known is not None else "-",
        "client": {None: "-", False: "ok", True: "was the limit"}[limited],
        "machine": "-" if machine is None else "shared" if machine.findings else "quiet",
        "requests": summary.requests,
        "errors": sum(summary.errors.values()),
        "ttft_p50": show(summary.ttft_ms.p50),
        "ttft_p95": show(summary.ttft_ms.p95),
        "tpot_mean": show(summary.tpot_ms.mean, 2) if summary.no_tpot is None else str(summary.no_tpot),
        "tpot_p95": show(summary.tpot_ms.p95, 2),
        "output_tokens_per_s": show(summary.output_tokens_per_s),
        "requests_per_s": show(summary.requests_per_s, 2),
    }
