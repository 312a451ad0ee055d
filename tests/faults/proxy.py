"""A TCP line that misbehaves: late, deaf in one direction or both, cut with a reset, or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal

Mode = Literal["pass", "late", "blackhole", "half-open"]
#: Seconds by which a late line delays each piece.
LATE = 0.15


class Proxy:
    """Relays connections to an address of a server; `mode` says how well."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lines: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.mode: Mode = "pass"
        self.port = 0

    async def open(self) -> None:
        """Listen on a port of its own; the same again after `close`."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._lines |= {writer, up_writer}
        for source, sink, answers in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        """What is swallowed is gone: a line that was deaf is cut before it works again, as a real one would be by its ends."""
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.mode == "blackhole" or (self.mode == "half-open" and answers):
                    continue
                if self.mode == "late":
                    await asyncio.sleep(LATE)
                sink.write(data)
                await sink.drain()
        sink.close()
        self._lines.discard(sink)

    def reset(self) -> None:
        """Cut every connection without a farewell (RST)."""
        for line in tuple(self._lines):
            ends = line.get_extra_info("socket")
            with contextlib.suppress(OSError):
                ends.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.transport.abort()
        self._lines.clear()

    async def close(self) -> None:
        """Stop listening and cut everything."""
        if self._server is not None:
            self._server.close()
            self.reset()
            await self._server.wait_closed()
        for pump in tuple(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
