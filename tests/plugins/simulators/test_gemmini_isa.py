"""Programs survive their encoding; bytes that are no program are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.plugins.simulators.gemmini import host, isa
from tilewright.plugins.simulators.gemmini.commands import (
    ACCUMULATOR,
    GARBAGE,
    Compute,
    ConfigExecute,
    ConfigLoad,
    ConfigNorm,
    ConfigStore,
    Mvin,
    Mvout,
    Pool,
    Preload,
)
from tilewright.plugins.simulators.gemmini.loop_matmul import RELU, LoopMatmul
from tilewright.plugins.simulators.gemmini.machine import Machine
from tilewright.plugins.simulators.gemmini.tiling import ConvShape
from tilewright.protocol.errors import InvalidInput

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
PROGRAMS = {
    "matmul": host.matmul(
        host.Matmul(100, 200, 300, 1 << 20, 1 << 22, 1 << 24, d=1 << 25, repeating_bias=True, activation=RELU), Machine()
    ),
    "transposed": host.matmul(host.Matmul(40, 50, 60, 64, 1 << 20, 1 << 21, b_transpose=True, full_c=True, scale=0.125), Machine()),
    "conv": host.conv(host.Conv(ConvShape(2, 20, 30, 40, 50, 10, 15, 3, 2, 1), 1 << 20, 1 << 22, 1 << 24, 1 << 25, scale=0.5), Machine()),
    "pooled": host.conv(host.Conv(ConvShape(1, 30, 30, 3, 20, 30, 30, 3, 1, 1, 1, 3, 2, 1), 1 << 20, 1 << 22, 1 << 24), Machine()),
    "add": host.add(host.Add(100, 300, 64, 1 << 20, 1 << 21, a_scale=0.5), Machine()),
    "primitives": [
        ConfigNorm(1),
        ConfigNorm(0, -100, 2000, 70, 936),
        Mvin(2, 4096, ACCUMULATOR | 5, 16, 16),
        Preload(100, 16, 16, ACCUMULATOR, 16, 16),
        Compute(GARBAGE, 16, 16, True),
        Mvout(8192, 7, 3, 2),
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_round_trip(name):
    assert isa.decode(isa.encode(PROGRAMS[name])) == PROGRAMS[name]


def test_flushes_gates_and_counters_leave_no_command():
    silent = b"".join(isa.RECORD.pack(function, 0, 0) for function in isa.SILENT)
    assert isa.decode(silent + isa.encode(PROGRAMS["matmul"]) + silent) == PROGRAMS["matmul"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_field_of_every_command_survives(data):
    """Any value that a field's bits can hold."""

    def bits(width):
        return data.draw(st.integers(0, (1 << width) - 1))

    def scale():
        return data.draw(st.floats(width=32, allow_nan=False, allow_infinity=False))

    def block():
        return bits(32), bits(16), bits(16)

    flag = data.draw(st.booleans())
    pool = Pool(1 + bits(1), bits(2), bits(8), bits(8), bits(8), bits(8), bits(8), bits(2), bits(2))
    commands = [
        ConfigLoad(data.draw(st.integers(0, 2)), bits(64), bits(16), scale(), flag, bits(8)),
        ConfigStore(bits(32), bits(2), scale(), pool if flag else None),
        ConfigStore(bits(32), bits(2), None),
        ConfigExecute(bits(16), bits(16), flag, not flag, bits(2), flag, not flag, bits(32)),
        ConfigNorm(bits(8)),
        ConfigNorm(bits(8), data.draw(INT32), data.draw(INT32), data.draw(INT32), data.draw(INT32.filter(bool)), 4 * bits(1)),
        Mvin(data.draw(st.integers(0, 2)), bits(64), *block()),
        Mvout(bits(64), *block()),
        Preload(*block(), *block()),
        Compute(*block(), flag, *block()),
        LoopMatmul(*(bits(16) for _ in range(6)), *(bits(64) for _ in range(8)), *(data.draw(st.booleans()) for _ in range(5)),
                   bits(8), bits(2), bits(2), flag),
    ]  # fmt: skip
    assert isa.decode(isa.encode(commands)) == commands


def test_bytes_that_are_no_program():
    with pytest.raises(InvalidInput, match="18 bytes"):
        isa.decode(bytes(18))
    with pytest.raises(InvalidInput, match="instruction 0, function 99"):
        isa.decode(isa.RECORD.pack(99, 1, 2))
    with pytest.raises(InvalidInput, match="starts a loop after"):
        isa.decode(isa.RECORD.pack(isa.LOOP_WS, 0, 0))


def test_operands_as_published():
    """Field positions of the public macros: mvin of 16 x 64 to row 0x100; a loop of 2 x 3 x 4 blocks with padding 1, 2, 3."""
    assert next(isa.instructions(Mvin(0, 0x8000, 0x100, 16, 64))) == (2, 0x8000, 16 << 48 | 64 << 32 | 0x100)
    task = host.Matmul(31, 46, 61, 64, 4096, 8192)
    bounds = next(isa.instructions(host.matmul(task, Machine())[-1]))
    assert bounds == (9, 3 << 32 | 2 << 16 | 1, 4 << 32 | 3 << 16 | 2)
