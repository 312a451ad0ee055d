"""What a service says over HTTP of whether it lives and can work."""

from __future__ import annotations

import asyncio

import pytest

from tilewright.protocol.errors import InvalidInput
from tilewright.services.runtime import health


def jobs() -> tuple[int, str, bytes]:
    return 200, "text/plain", b"jobs 1\n"


async def ask(port: int, request: bytes) -> tuple[str, str]:
    """Status line and body of the answer; both empty when the line is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


async def test_living_and_ready_are_two_things() -> None:
    ready = False
    async with health.serving("127.0.0.1:0", health.pages(lambda: ready, jobs)) as port:
        assert await ask(port, b"GET /livez HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
        assert await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n") == ("HTTP/1.1 503 Service Unavailable", "not ready\n")
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "jobs 1\n")
        ready = True
        assert await ask(port, b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"POST /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\xff\x00\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"GET " + b"x" * 20_000, ""),
    ],
)
async def test_what_is_no_question(request_: bytes, status: str) -> None:
    async with health.serving("127.0.0.1:0", health.pages(lambda: True, jobs)) as port:
        try:
            assert (await ask(port, request_))[0] == status
        except ConnectionResetError:  # closed on a peer that still sends
            assert status == ""
        assert (await ask(port, b"GET /livez HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 200 OK"


async def test_a_caller_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    async with health.serving("127.0.0.1:0", health.pages(lambda: True, jobs)) as port:
        assert await ask(port, b"") == ("", "")


async def test_no_address_no_server() -> None:
    async with health.serving("", health.pages(lambda: True, jobs)) as port:
        assert port == 0


@pytest.mark.parametrize("address", ["8080", ":8080", "host:", "host:port", "host:70000"])
async def test_addresses(address: str) -> None:
    with pytest.raises(InvalidInput, match=f"health_address: '{address}', expected HOST:PORT"):
        health.parse(address)


async def test_an_address_that_is_taken_is_said() -> None:
    async with health.serving("127.0.0.1:0", {}) as port:
        with pytest.raises(InvalidInput, match=f"health_address: '127.0.0.1:{port}' cannot be listened on"):
            async with health.serving(f"127.0.0.1:{port}", {}):
                pass
