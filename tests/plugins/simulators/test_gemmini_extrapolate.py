"""Long programs: what is extrapolated from their first tiles is close to what all of them take, and says that it is."""

import pytest

from tilewright.plugins.simulators.gemmini import Gemmini, compiled, extrapolate, host
from tilewright.plugins.simulators.gemmini.lowering import Job
from tilewright.plugins.simulators.gemmini.machine import Machine
from tilewright.plugins.simulators.gemmini.tiling import ConvShape, MatmulTiles

PROGRAMS = {
    "product": host.matmul(host.Matmul(512, 512, 512, 1 << 20, 1 << 22, 1 << 24), Machine()),
    "convolution": host.conv(host.Conv(ConvShape(1, 28, 28, 128, 128, 28, 28, 3, 1, 1), 1 << 20, 1 << 22, 1 << 24), Machine()),
    "addition": host.add(host.Add(2000, 512, 1 << 20, 1 << 22, 1 << 24), Machine()),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_extrapolated_cycles_and_events(name):
    program = PROGRAMS[name]
    exact = compiled.run(Machine(), program)
    outcome, simulated, tiles = extrapolate.simulate(Machine(), program, 1500)
    assert simulated < tiles
    assert outcome.cycles == pytest.approx(exact.cycles, rel=0.03)
    assert outcome.events["read_bytes"] == pytest.approx(exact.events["read_bytes"], rel=0.1)
    assert all(sum(causes.values()) == outcome.cycles for causes in outcome.attribution.values())
    assert extrapolate.simulate(Machine(), program, 1 << 30) == (exact, tiles, tiles)


def test_repetitions_and_what_is_said_of_them():
    product = Job(host.Matmul(256, 256, 256, 1 << 20, 1 << 22, 1 << 24), MatmulTiles(4, 4, 4), 3, (1 << 16, 1 << 16, 1 << 16))
    whole, said = Gemmini().time(product, Machine(), 1 << 20)
    assert said == "2 of 3 repetitions simulated"
    part, said = Gemmini().time(product, Machine(), 1000)
    assert "tiles simulated, the others as tiles like them; 3 times" in said
    assert part.cycles == pytest.approx(whole.cycles, rel=0.05)
    assert sum(part.attribution["array"].values()) == part.cycles


def test_a_head_ends_after_the_wanted_steps():
    kept = extrapolate.head(PROGRAMS["product"], Machine(), 1000)
    assert kept == PROGRAMS["product"][: len(kept)]
    steps = [extrapolate.steps_of(loop, Machine()) for loop in kept[5:]]
    assert sum(steps[:-1]) <= 1000 < sum(steps)
