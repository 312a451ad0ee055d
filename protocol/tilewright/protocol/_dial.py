"""The first connection: what nats-py is told, and what a failure is called.

nats-py reports the reason of a failed attempt only to its error callback and would try for minutes; here the last reason
is kept, refusals that waiting cannot cure end the attempt at once, and the rest ends with `BusSettings.connect_timeout`.
"""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import nats.errors

from ._settings import BusSettings
from .errors import InvalidInput, NoConnection

#: Longest wait between two attempts to reconnect, in seconds (doubled from 50 ms, with jitter).
LONGEST_WAIT = 2.0
_random = random.SystemRandom()


def options(settings: BusSettings) -> dict[str, Any]:
    """Arguments for ``nats.connect``; `InvalidInput` when a setting cannot be used."""
    servers = [_server(part) for part in settings.url.split(",")]
    chosen: dict[str, Any] = {
        "servers": [url.geturl() for url in servers],
        "name": settings.name,
        "inbox_prefix": settings.inbox,
        "connect_timeout": min(2.0, settings.connect_timeout),
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "reconnect_to_server_handler": next_server,
        "ping_interval": 10,
        "max_outstanding_pings": 2,
        "drain_timeout": 5,
        "flush_timeout": 5.0,
    }
    if settings.token:
        chosen["token"] = settings.token
    if settings.credentials:
        chosen["user_credentials"] = _file("credentials", settings.credentials)
    if settings.nkey_seed:
        chosen["nkeys_seed"] = _file("nkey_seed", settings.nkey_seed)
    if settings.ca or any(url.scheme == "tls" for url in servers):
        try:
            chosen["tls"] = ssl.create_default_context(cafile=_file("ca", settings.ca) if settings.ca else None)
        except ssl.SSLError as error:
            raise InvalidInput(f"ca: {settings.ca!r} is not a PEM certificate bundle ({_tls_reason(error)})") from error
    return chosen


def demands_tls(settings: BusSettings) -> bool:
    """True when an address says ``tls://``: then nothing is said in clear."""
    return "tls://" in settings.url


def _tls_reason(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or str(error)


def _server(text: str) -> SplitResult:
    text = text.strip()
    url = urlsplit(text if "://" in text else f"nats://{text}")
    try:
        good = url.scheme in ("nats", "tls") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    if not good:
        raise InvalidInput(f"url: {text!r} is not a NATS address, expected nats://host:port or tls://host:port")
    return url


def _file(field: str, path: str) -> str:
    if not Path(path).is_file():
        raise InvalidInput(f"{field}: file {path!r} does not exist")
    return path


def public_url(settings: BusSettings) -> str:
    """The addresses without user names and passwords."""
    return ", ".join(part.strip().rpartition("@")[2] if "@" in part else part.strip() for part in settings.url.split(","))


def next_server(servers: list[Any], _info: dict[str, Any]) -> tuple[Any, float]:
    """The server that failed least, after a wait that doubles and is spread so that clients don't come back in step."""
    server = min(servers, key=lambda each: each.reconnects)
    wait = min(LONGEST_WAIT, 0.05 * 2 ** min(server.reconnects, 10))
    return server, wait * _random.uniform(0.5, 1.5)


def is_final(error: Exception) -> bool:
    """True for a refusal that another attempt cannot cure."""
    return _is_refusal(error) or isinstance(error, ssl.SSLCertVerificationError | nats.errors.SecureConnRequiredError)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, nats.errors.AuthorizationError) or "authorization violation" in str(error).lower()


def explain(settings: BusSettings, error: BaseException | None) -> NoConnection:
    """What to tell a user about the last error of a connection that did not come about."""
    return NoConnection(f"NATS at {public_url(settings)}: {_reason(settings, error)}")


def _reason(settings: BusSettings, error: BaseException | None) -> str:
    match error:
        case Exception() if _is_refusal(error):
            given = (
                "the token" if settings.token else "the credentials" if settings.credentials or settings.nkey_seed else "us without a token"
            )
            return f"the server refuses {given} (authorization violation)"
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not trusted ({error.verify_message}); name its CA bundle in TILEWRIGHT_NATS_CA"
        case ssl.SSLError():
            return f"the TLS handshake failed ({_tls_reason(error)})"
        case nats.errors.SecureConnRequiredError():
            return "the address asks for TLS, which the server does not offer"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case socket.gaierror():
            return f"the host name cannot be resolved ({error.strerror})"
        case None | TimeoutError() | nats.errors.TimeoutError():
            return f"no answer within {settings.connect_timeout:g} s"
    return f"{type(error).__name__}: {error}"
