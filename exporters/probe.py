"""What an engine says of itself over HTTP: whether it is healthy, its version, its model and how long a context."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import aiohttp

BODY_LIMIT = 1 << 20
"""Bytes of an answer that are read at most."""
NO_SUCH_ROUTE = frozenset({404, 405, 501})
TEXT_LIMIT = 300
"""Characters of a model's name or a version that are kept at most."""


class ProbeError(Exception):
    """The engine was reached and did not answer as it should: a timeout, a broken or oversized answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What the engine tells; None where it does not."""

    version: str | None = None
    model: str | None = None
    """The first model that it lists."""
    context_tokens: int | None = None
    """Prompt and output of a request together may have so many tokens."""


class EngineProbe:
    """Asks one engine.

    Args:
        session: the session to ask with; its timeout bounds every question.
        base_url: the engine's root, without a trailing slash and without `/v1`.
    """

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session, self._base_url = session, base_url

    async def healthy(self) -> bool | None:
        """Whether the engine says that it is healthy; None while nobody listens.

        `GET /health` decides; an engine without it is healthy when it lists its models. False while it says that it
        is not yet (503 during loading).

        Raises:
            ProbeError: it listens and does not answer in time.
        """
        status, _ = await self._get("/health")
        if status in NO_SUCH_ROUTE:
            status, _ = await self._get("/v1/models")
            if status in NO_SUCH_ROUTE:
                status, _ = await self._get("/models")
        return None if status is None else 200 <= status < 300

    async def identity(self) -> Identity:
        """Ask for version, model and context.

        vLLM answers `/version` with `{"version": ...}` and lists its model with `max_model_len`; llama.cpp lists its
        models as `owned_by: "llamacpp"` with `meta.n_ctx`, the context of one slot, and tells its build in `/props`
        (`build_info`); KsanaLLM lists its models under `/models`, and has neither version nor context.

        Raises:
            ProbeError: an answer came late or cannot be read.
        """
        status, body = await self._get("/v1/models")
        if status in NO_SUCH_ROUTE:
            status, body = await self._get("/models")
        models = _models(body) if status == 200 else []
        served = next((entry for entry in models if isinstance(entry.get("id"), str)), None)
        identity = Identity(None, _label(served["id"]), _context(served)) if served else Identity()
        if any(entry.get("owned_by") == "llamacpp" for entry in models):
            order = (("/props", "build_info"), ("/version", "version"))
        else:
            order = (("/version", "version"), ("/props", "build_info"))
        for path, key in order:
            status, body = await self._get(path)
            version = body.get(key) if status == 200 and isinstance(body, dict) else None
            if isinstance(version, str) and version:
                return dataclasses.replace(identity, version=_label(version))
        return identity

    async def _get(self, path: str) -> tuple[int | None, Any]:
        """Return (status, decoded JSON or None); status None when nothing listens."""
        try:
            async with self._session.get(self._base_url + path, allow_redirects=False) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > BODY_LIMIT:
                        raise ProbeError(f"GET {path}: more than {BODY_LIMIT} bytes")
                return answer.status, _decoded(bytes(body))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return None, None
        except TimeoutError:
            raise ProbeError(f"GET {path}: no answer in time") from None
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise ProbeError(f"GET {path}: {error or type(error).__name__}") from None


def _decoded(body: bytes) -> Any:
    """Decode JSON; None for anything else (`/health` often answers with nothing, or with HTML)."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _models(body: Any) -> list[dict[str, Any]]:
    """Entries of an OpenAI model list, whatever shape came."""
    data = body.get("data") if isinstance(body, dict) else body
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


def _label(text: str) -> str:
    """A text as a label can have it: halves of a surrogate pair, which JSON may carry and UTF-8 may not, become `?`."""
    return text[:TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")


def _context(model: dict[str, Any]) -> int | None:
    """Context length in one entry of a model list."""
    meta = model.get("meta")
    for value in (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53:
            return value
    return None
