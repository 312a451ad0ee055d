"""Programs that the hardware cannot run are stopped at the command, with its operands and the reason."""

import numpy as np
import pytest

from tilewright.plugins.simulators.gemmini import host, isa
from tilewright.plugins.simulators.gemmini.check import check
from tilewright.plugins.simulators.gemmini.commands import (
    ACCUMULATE,
    ACCUMULATOR,
    GARBAGE,
    Compute,
    ConfigExecute,
    ConfigLoad,
    ConfigStore,
    Mvin,
    Mvout,
    Pool,
    Preload,
)
from tilewright.plugins.simulators.gemmini.functional import Values
from tilewright.plugins.simulators.gemmini.machine import Machine
from tilewright.plugins.simulators.gemmini.tiling import ConvShape, ConvTiles, MatmulTiles
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput

M = Machine()
MATMUL = host.Matmul(400, 400, 400, 4096, 1 << 20, 1 << 21)
CONV = host.Conv(ConvShape(1, 28, 28, 256, 256, 28, 28, 3, 1, 1), 4096, 1 << 20, 1 << 22)


def loop(tiles):
    return host.matmul(MATMUL, M, MatmulTiles(*tiles))[5]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (Mvin(0, 4096, M.scratchpad_rows - 8, 16, 16), r"rows 16376 to 16391 of the scratchpad, which has 16384"),
        (Mvin(0, 4096, M.scratchpad_rows - 32, 16, 48), r"rows 16352 to 16399 of the scratchpad"),
        (Mvin(0, 4096, 0, 17, 16), r"17 x 16 elements, expected 1 x 1 to 16 x 64"),
        (Mvin(3, 4096, 0, 16, 16), r"load state 3"),
        (ConfigLoad(3, 64, 16), r"load state 3"),
        (Mvin(0, 4096, GARBAGE, 16, 16), r"garbage address"),
        (Mvout(4096, GARBAGE, 16, 16), r"garbage address"),
        (Mvout(4096, ACCUMULATOR | 1020, 16, 16), r"rows 1020 to 1035 of the accumulator, which has 1024"),
        (Mvout(4096, 0, 16, 65), r"16 x 65 elements"),
        (Preload(0, 16, 17, ACCUMULATOR, 16, 16), r"16 x 17 elements"),
        (Preload(0, 16, 16, ACCUMULATOR | 1023, 16, 16), r"rows 1023 to 1038 of the accumulator"),
        (Compute(16380, 16, 16, True), r"rows 16380 to 16395 of the scratchpad"),
        (Compute(0, 16, 0, True), r"16 x 0 elements"),
        (ConfigExecute(a_transpose=True, b_transpose=True), r"there is one transposer"),
        (host.matmul(MATMUL._replace(a_transpose=True, b_transpose=True), M)[-1], r"there is one transposer"),
        (loop((12, 12, 25)), r"the tile takes 9600 rows of the scratchpad, of which a loop has half, 8192"),
        (loop((10, 10, 1)), r"the tile takes 1600 rows of the accumulator, of which a loop has half, 512"),
        (loop((1, 1, 1))._replace(k=0), r"expected at least one of each"),
        (host.conv(CONV, M, ConvTiles(1, 28, 28, 16, 3, 3, 256))[2], r"rows of the scratchpad|rows of the accumulator"),
        (host.conv(CONV, M, ConvTiles(1, 4, 4, 16, 3, 3, 16))[2]._replace(krows=0), r"without elements"),
    ],
)
def test_a_command_that_cannot_be(command, why):
    program = [ConfigExecute(), command]
    with pytest.raises(InvalidInput, match=rf"command 1, {type(command).__name__}\(.*: .*{why}"):
        check(program, M)


def test_programs_of_the_library_pass():
    check(host.matmul(MATMUL, M), M)
    check(host.conv(CONV, M), M)
    check([ConfigStore(16, pool=Pool(2, 2, 2, 2, 2, 4, 4, 0, 0)), Mvout(4096, ACCUMULATOR, 0, 16)], M)


def run(program):
    Values(M, np.zeros(1 << 16, np.uint8)).run(program)


LOADS = [ConfigLoad(0, 16, 16), ConfigLoad(2, 64, 16), Mvin(0, 4096, 0, 16, 16)]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ([*LOADS, Preload(64, 16, 16, ACCUMULATOR, 16, 16)], r"command 3, Preload.*reads row 64 of the scratchpad, which nothing was"),
        (
            [*LOADS, Preload(0, 16, 16, ACCUMULATOR, 16, 16), Compute(8, 16, 16, True)],
            r"command 4, Compute.*reads row 16 of the scratchpad",
        ),
        (
            [*LOADS, Preload(0, 16, 16, ACCUMULATOR | ACCUMULATE, 16, 16), Compute(0, 16, 16, True)],
            r"command 4, Compute.*reads row 0 of the accumulator",
        ),
        ([*LOADS, ConfigStore(16), Mvout(8192, ACCUMULATOR | 5, 1, 16)], r"command 4, Mvout.*reads row 5 of the accumulator"),
        ([*LOADS, Mvin(2, 4096, ACCUMULATOR | ACCUMULATE, 1, 16)], r"command 3, Mvin.*reads row 0 of the accumulator"),
        ([*LOADS, Compute(0, 16, 16, True)], r"command 3, Compute.*nothing was preloaded"),
    ],
)
def test_what_was_never_written_is_not_read(program, why):
    with pytest.raises(InvalidInput, match=why):
        run(program)


def test_the_plugin_checks_programs_in_bytes():
    program = isa.encode([Mvin(0, 4096, M.scratchpad_rows, 16, 16)])
    architecture = registry.load("targets", "gemmini").architecture()
    with pytest.raises(InvalidInput, match=r"command 0, Mvin.*rows 16384 to 16399"):
        registry.load("simulators", "gemmini").execute(program, np.zeros(1 << 16, np.uint8), architecture)
