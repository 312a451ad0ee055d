"""What a worker and its child process say to each other: length-prefixed MessagePack over two pipes.

::

    worker                       child
      Work ───────────────────►
           ◄─────────────────── Identified     (or Stale: the code on disk changed, start a new child)
      Proceed or Skip ────────►
           ◄─────────────────── Alive, Note, Saved ...
           ◄─────────────────── Done or Refused
"""

from __future__ import annotations

import asyncio
from typing import BinaryIO, Literal

import msgspec

from tilewright.protocol.codec import MAX_VALUE, decode, encode
from tilewright.protocol.errors import InvalidMessage
from tilewright.protocol.subjects import Stage

_PREFIX = 4


class Work(msgspec.Struct, frozen=True, tag=True):
    """Do this job."""

    stage: Stage
    #: The encoded job.
    job: bytes


class Proceed(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Nobody knows the answer yet: compute it, from what was kept of an earlier attempt where there is something."""

    saved: bytes = b""


class Skip(msgspec.Struct, frozen=True, tag=True):
    """The answer is known: forget the job."""


class Identified(msgspec.Struct, frozen=True, tag=True):
    """The question that a job asks."""

    #: `keys.result_key` of the job and the code that answers it.
    key: str
    #: Identities of the plugins that it names.
    plugins: str


class Stale(msgspec.Struct, frozen=True, tag=True):
    """A source file changed since this process imported it; it ends after saying so."""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """A sign of life."""


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something for people to see."""

    kind: Literal["progress", "partial"]
    text: str
    figures: dict[str, float] = {}


class Saved(msgspec.Struct, frozen=True, tag=True):
    """How far the job has come, to be kept for another attempt."""

    data: bytes


class Done(msgspec.Struct, frozen=True, tag=True):
    """The job is done."""

    #: The encoded answer.
    answer: bytes
    #: False: a time limit, or SIGTERM, cut it.
    complete: bool
    cpu_seconds: float
    #: True: SIGTERM came while it was being computed.
    interrupted: bool = False


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The job cannot be done (so)."""

    reason: str
    message: str
    exit_code: int = 1
    #: True: trying again may help.
    again: bool = False


FromWorker = Work | Proceed | Skip
FromChild = Identified | Stale | Alive | Note | Saved | Done | Refused


def pack(frame: FromWorker | FromChild) -> bytes:
    """Bytes of a frame with its length in front."""
    body = encode(frame)
    return len(body).to_bytes(_PREFIX, "big") + body


def read(stream: BinaryIO) -> FromWorker | None:
    """The next frame from the worker; None when it has closed the pipe."""
    prefix = stream.read(_PREFIX)
    if len(prefix) < _PREFIX:
        return None
    return decode(stream.read(int.from_bytes(prefix, "big")), FromWorker, limit=MAX_VALUE)  # type: ignore[arg-type]


async def receive(stream: asyncio.StreamReader) -> FromChild | None:
    """The next frame from the child; None when it has closed the pipe. `InvalidMessage` when it is not a frame."""
    try:
        length = int.from_bytes(await stream.readexactly(_PREFIX), "big")
        if length > MAX_VALUE:
            raise InvalidMessage(f"frame of {length} bytes, expected at most {MAX_VALUE}")
        body = await stream.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return decode(body, FromChild, limit=MAX_VALUE)  # type: ignore[arg-type]
