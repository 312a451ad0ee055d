"""Frames between a worker and its child: what comes out is what went in, and noise is noise."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.protocol.codec import MAX_VALUE
from tilewright.protocol.errors import InvalidMessage
from tilewright.services.runtime.frames import Alive, Done, Identified, Note, Proceed, Refused, Skip, Stale, Work, pack, read, receive

FROM_WORKER = [Work("map", b"job"), Proceed(), Skip()]
FROM_CHILD = [
    Identified("map.key", "mappers:x"),
    Stale(),
    Alive(),
    Note("partial", "best", {"edp": 1.5}),
    Done(b"answer", True, 0.25),
    Refused("bad input", "no", 2),
]


def stream(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def test_frames_from_the_worker() -> None:
    pipe = io.BytesIO(b"".join(map(pack, FROM_WORKER)))
    assert [read(pipe) for _ in FROM_WORKER] == FROM_WORKER
    assert read(pipe) is None


async def test_frames_from_the_child() -> None:
    pipe = stream(b"".join(map(pack, FROM_CHILD)))
    assert [await receive(pipe) for _ in FROM_CHILD] == FROM_CHILD
    assert await receive(pipe) is None


async def test_large_frames() -> None:
    done = Done(bytes(1_000_000), True, 0.0)
    assert await receive(stream(pack(done))) == done


@given(st.binary(max_size=200))
def test_noise_is_never_a_frame_of_another_length(noise: bytes) -> None:
    async def heard() -> object:
        return await receive(stream(noise))

    try:
        frame = asyncio.run(heard())
    except InvalidMessage:
        return
    assert frame is None or isinstance(frame, tuple(map(type, FROM_CHILD)))


async def test_an_absurd_length_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidMessage, match=f"frame of 4294967295 bytes, expected at most {MAX_VALUE}"):
        await receive(stream(b"\xff\xff\xff\xff"))
