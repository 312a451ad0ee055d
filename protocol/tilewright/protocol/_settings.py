"""How to reach NATS. Kept apart from the bus so that settings can be read without importing the client library."""

from __future__ import annotations

import msgspec


class BusSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to reach the server. Secrets are read from files, never from arguments."""

    #: ``nats://`` or ``tls://`` URLs, comma separated.
    url: str
    #: Token (embedded server); normally read from a 0600 file by the caller.
    token: str = ""
    #: Path of a ``.creds`` file.
    credentials: str = ""
    #: Path of an nkey seed file.
    nkey_seed: str = ""
    #: Path of a CA bundle for ``tls://``.
    ca: str = ""
    #: Seconds for the first connection.
    connect_timeout: float = 5.0
    #: Client name shown by the server.
    name: str = "tilewright"
    #: First word of the subjects on which answers come in; a server with users lets each role hear its own only.
    inbox: str = "_INBOX"

    def __repr__(self) -> str:
        """Without the token, so that a traceback or a log cannot leak it."""
        return f"BusSettings(url={self.url!r}, name={self.name!r})"
