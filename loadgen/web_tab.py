"""Bakeoff's part of Locust's web UI: an extra tab, `/metrics`, the block's state, and a guard on who may post."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from locust.web import WebUI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from loadgen.definitions import CellSummary
from loadgen.errors import UserError
from loadgen.master import Master
from loadgen.plan import BlockPlan

TAB = "bakeoff"
COLUMNS = (
    ("run", "Run"),
    ("name", "Engine"),
    ("cell", "Cell (prompt-output-concurrency)"),
    ("requests", "Measured"),
    ("errors", "Errors"),
    ("ttft_p50", "TTFT p50 (ms)"),
    ("ttft_p95", "TTFT p95 (ms)"),
    ("tpot_mean", "TPOT mean (ms)"),
    ("tpot_p95", "TPOT p95 (ms)"),
    ("output_tokens_per_s", "Output tokens/s"),
    ("requests_per_s", "Requests/s"),
)
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def install(web_ui: WebUI, master: Master) -> None:
    """Add everything to the web UI of a master."""
    app = web_ui.app
    if app is None:
        raise TypeError("this web UI has no Flask application")
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
        return jsonify({"runs_dir": str(master.runs_dir.resolve()), "engines": master.planner.names()})

    @app.route("/bakeoff/block")
    def block() -> Response:
        return jsonify(master.status())


def _guard(app: Flask, bound_to: str) -> None:
    """Refuse what a foreign web page could send through a visitor's browser.

    Locust allows every origin on every route. A page elsewhere may neither post here (Origin is of another host)
    nor read from here (no Access-Control-Allow-Origin), nor reach us under a name of its own that it has pointed
    at this machine (Host is then that name).
    """
    allowed = {*LOCAL_NAMES, bound_to}

    @app.before_request
    def refuse() -> tuple[str, int] | None:
        host = urlsplit(f"//{request.host}").hostname or ""
        bound_to_all = bound_to in ("", "0.0.0.0", "::", "*")  # noqa: S104
        if host not in allowed and not bound_to_all:
            return f"This server does not answer under the name {host!r}.", 403
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return "Cross-origin requests are refused.", 403
        if origin is None and site not in (None, "same-origin", "none"):
            return "Cross-site requests are refused.", 403
        return None

    @app.after_request
    def same_origin_only(response: Response) -> Response:
        for name in [name for name, _ in response.headers if name.lower().startswith("access-control-")]:
            del response.headers[name]
        return response


def _plan_before_swarm(app: Flask, master: Master) -> None:
    """Check a submitted form before Locust acts on it, and answer with what is wrong in Locust's own form."""

    @app.before_request
    def check() -> Response | None:
        if request.path != "/swarm" or request.method != "POST":
            return None
        options = master.environment.parsed_options
        values: dict[str, Any] = dict(vars(options)) if options else {}
        # What a campaign has set for its own blocks must not stick to a block that is started by hand.
        values.update(run_id="", block="", scenario="", timeouts="")
        values.update(request.form.items())
        try:
            master.prepare(values)
        except UserError as error:
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
        found.append(_row(*current, collector.block.summary()))
    for key, summary in reversed(collector.finished.items()):
        if key != current:
            found.append(_row(*key, summary))
    return found


def _row(run_id: str, engine: str, cell: str, summary: CellSummary) -> dict[str, Any]:
    def show(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return {
        "run": run_id,
        "name": engine,
        "safe_name": engine,
        "cell": cell,
        "requests": summary.requests,
        "errors": sum(summary.errors.values()),
        "ttft_p50": show(summary.ttft_ms.p50),
        "ttft_p95": show(summary.ttft_ms.p95),
        "tpot_mean": show(summary.tpot_ms.mean, 2),
        "tpot_p95": show(summary.tpot_ms.p95, 2),
        "output_tokens_per_s": show(summary.output_tokens_per_s),
        "requests_per_s": show(summary.requests_per_s, 2),
    }
