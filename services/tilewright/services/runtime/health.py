"""Questions over HTTP for whoever keeps a service: does it live (``/livez``), can it work (``/readyz``), what did it do (``/metrics``).

A service lives while its event loop answers: a NATS server that is away makes it unready, never dead, so that an outage
there does not restart every service here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tilewright.protocol.errors import InvalidInput

#: Bytes of a request that are read, and seconds that it may take.
REQUEST, PATIENCE = 8192, 5.0
TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

#: Path -> what answers it: status, content type, body.
Pages = dict[str, Callable[[], tuple[int, str, bytes]]]


def pages(ready: Callable[[], bool], metrics: Callable[[], tuple[int, str, bytes]]) -> Pages:
    """The questions; `ready` says whether the service can work now, `metrics` answers the last."""
    return {
        "/metrics": metrics,
        "/livez": lambda: (200, TEXT, b"ok\n"),
        "/readyz": lambda: (200, TEXT, b"ok\n") if ready() else (503, TEXT, b"not ready\n"),
    }


def parse(address: str) -> tuple[str, int]:
    """Host and port of the setting `health_address`; `InvalidInput` when it is no address."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"health_address: {address!r}, expected HOST:PORT, as in 127.0.0.1:8080")
    return host, int(port)


@contextlib.asynccontextmanager
async def serving(address: str, offered: Pages) -> AsyncIterator[int]:
    """Answer on an address (empty: nowhere) for as long as the context lasts; gives the port (0: nowhere)."""
    if not address:
        yield 0
        return
    host, port = parse(address)
    try:
        server = await asyncio.start_server(lambda reader, writer: _answer(reader, writer, offered), host, port, limit=REQUEST)
    except OSError as error:
        raise InvalidInput(f"health_address: {address!r} cannot be listened on: {error.strerror}") from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, offered: Pages) -> None:
    """One request, one answer, then the line is closed."""
    try:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = _page(head.split(b"\r\n", 1)[0].decode("latin-1"), offered)
            lines = (f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return  # no request, or nobody there to hear the answer
    finally:
        writer.close()


def _page(request: str, offered: Pages) -> tuple[int, str, bytes]:
    words = request.split(" ")
    if len(words) != 3:
        return 400, TEXT, b"expected METHOD PATH VERSION\n"
    method, path, _ = words
    if method != "GET":
        return 405, TEXT, b"expected GET\n"
    answer = offered.get(path.partition("?")[0])
    return answer() if answer else (404, TEXT, (" ".join(sorted(offered)) + "\n").encode())
