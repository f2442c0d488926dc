"""What a person can do about an endpoint that gives no answer, or refuses to."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from urllib3 import exceptions

from loadgen.engines.needs import Needs

PROBE_S = 3.0
"""Longest wait for a handshake that only tells whether a port speaks TLS."""
NO_KEY = "Give the API key with --api-key-env, or as --header NAME=env:VARIABLE."
WRONG_KEY = "The API key was sent and is not accepted: see that it is the one for this address, and still valid."
WRONG_HEADERS = f"The further headers were sent and are not enough. {NO_KEY}"


def no_answer(base_url: str, error: exceptions.HTTPError) -> str:
    """Why no HTTP came from a URL, and what to do. A server that broke off is asked whether it speaks TLS."""
    if isinstance(error, exceptions.NameResolutionError):
        why = getattr(error.__cause__, "strerror", None) or "there is no such name"
        return (
            f"The name {urlsplit(base_url).hostname!r} in {base_url} cannot be resolved: {why}. "
            "Is it spelled right, and does this machine know it?"
        )
    if isinstance(error, exceptions.SSLError):
        cause = innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "A private authority's certificate can be named with --cacert or in SSL_CERT_FILE."
        else:
            hint = f"If it speaks plain HTTP, give http{base_url.removeprefix('https')}."
        return f"{base_url}: no TLS connection: {cause}. {hint}"
    if not isinstance(error, exceptions.NewConnectionError) and (hint := wants_tls(base_url)):
        return f"No HTTP comes from {base_url}. {hint}"
    return f"Nothing answers at {base_url}. Is the engine up, and is the URL right?"


def no_right(api_key: str | None, needs: Needs) -> str:
    """What to do about 401 or 403, by what was sent along."""
    return WRONG_KEY if api_key else WRONG_HEADERS if needs.headers else NO_KEY


def wants_tls(base_url: str) -> str:
    """That an `http://` URL is of a port which speaks TLS; empty where it does not."""
    url = urlsplit(base_url)
    if url.scheme != "http" or not _speaks_tls(url.hostname or "", url.port or 80):
        return ""
    return f"It speaks TLS: give https{base_url.removeprefix('http')}."


def innermost(error: BaseException) -> BaseException:
    """The cause that libraries have wrapped several times."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    cause = getattr(error, "reason", None)
    return innermost(cause) if isinstance(cause, BaseException) else error


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a handshake succeeds, whoever it is with: nothing is sent, and no certificate looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
