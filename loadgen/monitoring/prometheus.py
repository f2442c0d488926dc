"""Asking Prometheus: range and instant queries, its scrape interval; every failure in words.

Source of the protocol: Prometheus HTTP API, `/api/v1/*`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests
import urllib3

from loadgen.message import say

TIMEOUT_S = 5.0
ANSWER_LIMIT_S, MAX_ANSWER = 15.0, 64 << 20
"""Of one answer, in all: what a run folder names may be any server."""
PATIENCE = 3
"""Connections that may fail before a Prometheus is taken for gone: a page asks a hundred times."""
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}

Labels = Mapping[str, str]
Point = tuple[float, float]
"""(seconds since the Unix epoch, value). The value may be NaN or infinite."""


class PrometheusError(Exception):
    """Prometheus could not be asked; the text says why."""


class PrometheusGone(PrometheusError):
    """It does not answer at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One time series of an answer."""

    labels: Labels
    points: list[Point]
    """In order of time; one of an instant query."""


class Prometheus:
    """One Prometheus server. Every method raises PrometheusError when it gets no proper answer within 5 s."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._failures = 0

    @property
    def gone(self) -> bool:
        """Whether it failed to answer so often that it is asked no more."""
        return self._failures >= PATIENCE

    def range(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate a query at start, start + step, ... up to end (seconds since the Unix epoch)."""
        data = self._get("query_range", {"query": query, "start": start, "end": end, "step": step})
        return self._series(data, "values")

    def instant(self, query: str, at: float) -> list[Series]:
        """Evaluate a query at one moment (seconds since the Unix epoch)."""
        data = self._get("query", {"query": query, "time": at})
        try:
            if data["resultType"] == "scalar":
                return [Series({}, [_point(data["result"])])]
        except (KeyError, TypeError, ValueError):
            raise self._stranger() from None
        return self._series(data, "value")

    def scrape_interval(self) -> float:
        """The global scrape interval in seconds."""
        data = self._get("status/config", {})
        text = str(data.get("yaml", "")) if isinstance(data, dict) else ""
        found = re.search(r"^ +scrape_interval: *(\S+)", text, re.MULTILINE)
        seconds = duration_seconds(found[1]) if found else None
        if not seconds:
            raise self._stranger()
        return seconds

    def _get(self, path: str, parameters: Mapping[str, str | float]) -> Any:
        if self.gone:
            raise PrometheusGone(say("Prometheus at {url} stopped answering", url=self.url))
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy for the outside world must not stand before a local Prometheus
                answer = session.get(
                    f"{self.url}/api/v1/{path}",
                    params=dict(parameters),
                    timeout=TIMEOUT_S,
                    stream=True,
                    allow_redirects=False,
                )
                body = json.loads(_read(answer))
            if body["status"] == "success":
                return body["data"]
            raise PrometheusError(
                say(
                    "Prometheus at {url} refused the query: {error}",
                    url=self.url,
                    error=body.get("error") or answer.status_code,
                )
            )
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise self._stranger(answer.status_code) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            self._failures += 1
            text = say("Prometheus at {url} does not answer ({error})", url=self.url, error=type(error).__name__)
            raise PrometheusGone(text) from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._stranger() from None

    def _series(self, data: Any, key: str) -> list[Series]:
        try:
            found = []
            for row in data["result"]:
                pairs: Sequence[Any] = row[key] if key == "values" else [row[key]]
                labels = {str(name): str(value) for name, value in row["metric"].items()}
                found.append(Series(labels, [_point(pair) for pair in pairs]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._stranger() from None
        return found

    def _stranger(self, status: int | None = None) -> PrometheusError:
        text = say("{url} answers, but not as a Prometheus does", url=self.url)
        return PrometheusError(text if status is None else say("{what} (HTTP {status})", what=text, status=status))


def _read(answer: requests.Response) -> bytes:
    """An answer's body. Raises requests.Timeout where it takes too long, or has more bytes than any page asks for."""
    deadline, body = time.monotonic() + ANSWER_LIMIT_S, bytearray()
    while part := answer.raw.read1(1 << 16, decode_content=True):
        body += part
        if len(body) > MAX_ANSWER or time.monotonic() > deadline:
            raise requests.Timeout
    return bytes(body)


def duration_seconds(text: str) -> float | None:
    """A length of time as Prometheus writes it, such as `1m30s`, in seconds; None for what is none."""
    if not re.fullmatch(r"(\d+(ms|[smhdwy]))+", text):
        return None
    return float(sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", text)))


def quoted(text: str) -> str:
    """A text as PromQL writes it, in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _point(pair: Any) -> Point:
    at, value = pair
    return float(at), float(value)
