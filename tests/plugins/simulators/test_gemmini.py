"""The plugin: conformance, tilings against published figures, sweeps, attribution, trouble."""

import itertools

import msgspec
import pytest

from tilewright.plugins.simulators.gemmini import compiled, host
from tilewright.plugins.simulators.gemmini.commands import GARBAGE, Compute, ConfigExecute, Preload
from tilewright.plugins.simulators.gemmini.energy import energy
from tilewright.plugins.simulators.gemmini.loop_matmul import SOFTMAX
from tilewright.plugins.simulators.gemmini.machine import LEAN, Machine, Memory
from tilewright.plugins.simulators.gemmini.packets import read_packets, write_packets
from tilewright.plugins.simulators.gemmini.tiling import ConvShape, tile_add, tile_conv, tile_matmul, tile_norm
from tilewright.plugins.simulators.gemmini.timing import simulate
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidArchitecture, InvalidInput
from tilewright.protocol.plugin import Budget, SimRequest
from tilewright.protocol.workload import batched_matmul, conv2d, depthwise, elementwise, matmul
from tilewright.testing import samples
from tilewright.testing.simulators import SimulatorConformance


class TestConformance(SimulatorConformance):
    name = "gemmini"
    operators = ("matmul", "conv", "vector", "prime", "attention", "depthwise")

    def architecture(self):
        return registry.load("targets", "gemmini").architecture()


def run(operators, **options):
    architecture = registry.load("targets", "gemmini").architecture()
    schedules = tuple(samples.schedule(operator, architecture) for operator in operators)
    ctx = HostContext("simulators", "gemmini", Budget())
    return registry.load("simulators", "gemmini").run(SimRequest(schedules, architecture, options), ctx)


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((512, 512, 512), (5, 6, 32)), ((128, 768, 768), (5, 5, 48)), ((16, 512, 512), (1, 15, 32)), ((512, 64, 512), (8, 4, 32))],
)
def test_tiles_of_the_library(shape, tiles):
    """Measured with the library's own code (gemmini-rocc-tests 180c468)."""
    assert tile_matmul(*shape, Machine()) == tiles


#: Layers of ResNet-50 and BERT-Base with the tiles of the library of 2022 (DOSA's FireSim data, ucb-bar/dosa, BSD-2-Clause):
#: C, K, rows = columns of the result, kernel, stride; kernel rows, kernel columns, columns, rows, input and output channels, images.
LIBRARY = [
    ((3, 64, 112, 7, 2), (7, 7, 23, 22, 3, 16, 1)), ((64, 64, 56, 1, 1), (1, 1, 23, 22, 64, 16, 1)),
    ((64, 64, 56, 3, 1), (3, 3, 23, 22, 64, 16, 1)), ((64, 256, 56, 1, 1), (1, 1, 23, 22, 64, 16, 1)),
    ((256, 64, 56, 1, 1), (1, 1, 23, 22, 240, 16, 1)), ((128, 128, 28, 3, 2), (3, 3, 23, 22, 48, 16, 1)),
    ((128, 512, 28, 1, 1), (1, 1, 23, 22, 128, 16, 1)), ((256, 512, 28, 1, 2), (1, 1, 23, 22, 64, 16, 1)),
    ((512, 128, 28, 1, 1), (1, 1, 23, 22, 240, 16, 1)), ((128, 128, 28, 3, 1), (3, 3, 23, 22, 128, 16, 1)),
    ((256, 256, 14, 3, 2), (3, 3, 14, 14, 105, 32, 1)), ((256, 1024, 14, 1, 1), (1, 1, 14, 14, 256, 32, 1)),
    ((512, 1024, 14, 1, 2), (1, 1, 14, 14, 160, 32, 1)), ((1024, 256, 14, 1, 1), (1, 1, 14, 14, 568, 32, 1)),
    ((256, 256, 14, 3, 1), (3, 3, 14, 14, 240, 32, 1)), ((512, 512, 7, 3, 2), (3, 3, 7, 7, 113, 96, 1)),
    ((512, 2048, 7, 1, 1), (1, 1, 7, 7, 512, 160, 1)), ((1024, 2048, 7, 1, 2), (1, 1, 7, 7, 368, 160, 1)),
    ((2048, 512, 7, 1, 1), (1, 1, 7, 7, 624, 160, 1)), ((512, 512, 7, 3, 1), (3, 3, 7, 7, 119, 112, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "tiles"), LIBRARY)
def test_convolution_tiles_of_the_library(layer, tiles):
    c, k, out, kernel, stride = layer
    # an odd image: the library of 2022 loads every pixel of a strided 1 x 1 kernel
    size = out * stride + (1 if stride == 2 and kernel == 1 else 0)
    found = tile_conv(ConvShape(1, size, size, c, k, out, out, kernel, stride, kernel // 2), Machine())
    assert (found.krows, found.kcols, found.pocols, found.porows, found.kchs, found.pochs, found.batches) == tiles


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((128, 768, 768), (80, 80, 768)),
        ((128, 128, 64), (80, 96, 64)),
        ((128, 768, 3072), (80, 80, 816)),
        ((1, 1000, 2048), (16, 128, 896)),
    ],
)
def test_product_tiles_of_the_library(shape, tiles):
    """From the same data: elements of M, N and K per tile."""
    assert tuple(16 * size for size in tile_matmul(*shape, Machine())) == tiles


def test_addition_tiles_are_halved_until_they_fit():
    """By the published rule: rows are halved while there are more rows than columns, else a block of columns goes."""
    assert tile_add(64, 64, Machine()) == (64, 64)
    assert tile_add(3136, 64, Machine()) == (98, 64)
    assert tile_add(64, 3136, Machine()) == (64, 128)
    assert tile_add(49, 2048, Machine()) == (49, 128)


def test_tiles_of_a_softmax_hold_whole_rows():
    assert tile_matmul(128, 128, 64, Machine(), SOFTMAX).j == 8
    assert tile_norm(128, 128, Machine()) == 64
    assert tile_norm(128, 768, Machine()) == 16


def test_channel_tiles_grow_by_one():
    """The library grows channels by one, so tiles that are no multiple of the array occur."""
    assert tile_conv(ConvShape(1, 14, 14, 512, 512, 7, 7, 3, 2, 1), Machine()).kchs == 113


def test_requests_are_the_smallest_that_bring_most():
    assert [packet.size for packet in read_packets(48, 64, 16, 16, 64)] == [16, 64]
    assert [packet.size for packet in read_packets(36, 64, 16, 16, 64)] == [32, 64]
    assert write_packets(48, 64, 16, 64) == (1, 4)


def cycles(m, k, n, machine, half=0):
    return compiled.run(
        machine, host.matmul(host.Matmul(m, n, k, 1 << 20, 1 << 24, 1 << 26, a_stride=512, b_stride=512, c_stride=512), machine), half
    ).cycles


def lean(**fields):
    memory = Memory(latency=fields.pop("latency", 40))
    return msgspec.structs.replace(LEAN, memory=memory, **fields)


def test_latency_sweep_of_the_rtl():
    """16 x 512 x 512 takes the same until the requests in flight no longer hide the latency (RTL, this very sweep)."""
    for latency, measured in {5: 29169, 20: 29199, 40: 29239, 100: 29359, 200: 45033, 400: 88116}.items():
        assert cycles(16, 512, 512, lean(latency=latency), half=1) == pytest.approx(measured, rel=0.01)


def test_in_flight_limit_of_the_rtl():
    """Back-pressure to 16 requests (RTL)."""
    points = {(64, 64, 64): {40: 2113, 70: 2179, 100: 2385}, (128, 128, 128): {40: 9708, 70: 9797, 100: 10088}}
    for shape, row in points.items():
        for latency, measured in row.items():
            assert cycles(*shape, lean(in_flight=16, latency=latency)) == pytest.approx(measured, rel=0.10)


def test_more_of_what_limits_is_not_slower():
    """Not of everything: beyond what hides the latency, more requests in flight only crowd the banks (9,708 cycles of the RTL with 16,
    9,871 without a limit)."""
    shape = (64, 256, 256)
    taken = [cycles(*shape, lean(latency=100, in_flight=count)) for count in (4, 8, 16)]
    assert taken == sorted(taken, reverse=True)
    taken = [cycles(16, 512, 512, lean(latency=100, in_flight=count), half=1) for count in (4, 8, 16, 32, 64)]
    assert taken == sorted(taken, reverse=True)
    # latency-bound: half the requests take twice as long
    assert taken[0] == pytest.approx(2 * taken[1], rel=0.10)
    taken = [cycles(512, 512, 512, lean(scratchpad_banks=count)) for count in (1, 2, 4, 8)]
    assert taken == sorted(taken, reverse=True)
    taken = [cycles(*shape, lean(latency=latency)) for latency in (5, 20, 40, 100, 200, 400)]
    assert all(later > 0.98 * earlier for earlier, later in itertools.pairwise(taken))
    assert taken[-1] > 1.1 * taken[0]
    assert cycles(*shape, lean(single_ported=False)) < cycles(*shape, lean())


def test_larger_accumulators_help_a_slow_memory():
    """Figure 13 of the survey: with the default 64 KiB a BERT is held back, with 128 KiB and more its products use 91 % of the array.

    Below that it is not monotone: the library's tiles of 5 and 6 blocks straddle memory lines, those of 4 (32 KiB) do not.
    """
    memory = Memory(latency=40, cache_bytes=64 * 1024, dram_bytes_per_cycle=4)
    machines = [msgspec.structs.replace(LEAN, memory=memory, accumulator_bytes=kib * 1024) for kib in (64, 128, 256)]
    task = host.Matmul(512, 768, 768, 1 << 20, 1 << 24, 1 << 26)
    small, large, largest = (512 * 768 * 768 / 256 / compiled.run(machine, host.matmul(task, machine)).cycles for machine in machines)
    assert small < 0.8 < largest
    assert large == pytest.approx(0.91, rel=0.10)


def test_causes_add_up_for_every_unit():
    result = run([samples.OPERATORS[name] for name in ("matmul", "conv", "attention")])
    for shares in result.attribution:
        for unit in ("array", "load", "store"):
            causes = {name: share for name, share in shares.items() if name.startswith(unit)}
            assert sum(causes.values()) == pytest.approx(1)
            assert min(causes.values()) >= 0


def test_energy_counts_every_multiplication():
    for operator in (
        matmul(p=40, c=50, k=60),
        conv2d(r=3, s=3, p=9, q=9, c=20, k=24, padding=(1, 1)),
        batched_matmul(g=3, p=20, c=16, k=24),
    ):
        (cost,) = run([operator], tiles="auto").costs
        assert sum(row.count for row in cost.energy if row.action == "compute") == operator.macs
        assert cost.fidelity == "cycle"


def test_every_event_has_a_price():
    """Counts at the prices of the architecture; one that costs nothing is refused, and so is one that nobody has priced."""
    architecture = registry.load("targets", "gemmini").architecture()
    events = simulate(Machine(), host.matmul(host.Matmul(64, 64, 64, 4096, 1 << 14, 1 << 15), Machine())).events
    rows = {(row.component, row.action): row for row in energy(events, architecture, Machine())}
    assert rows["MAC", "compute"].count == rows["Registers", "read"].count == 64**3
    assert rows["DRAM", "read"].count * architecture.level("DRAM").block_words == 2 * 64 * 64
    assert rows["DRAM", "update"].count * architecture.level("DRAM").block_words == 64 * 64
    assert rows["Scratchpad", "fill"].count == 2 * 64 * 4
    assert rows["Registers", "fill"].count == 4 * 4 * 16 * 16
    levels = tuple(msgspec.structs.replace(level, read_energy_pj=0.0) for level in architecture.levels)
    with pytest.raises(InvalidArchitecture, match=r"DRAM\.read_energy_pj: 0\.0, but there are 512 of the event read_beats"):
        energy(events, msgspec.structs.replace(architecture, levels=levels), Machine())
    with pytest.raises(InvalidArchitecture, match="event page_walk: happened 3 times"):
        energy({**events, "page_walk": 3}, architecture, Machine())


def test_depthwise_runs_channel_by_channel():
    operator = depthwise(r=3, s=3, p=6, q=6, g=8)
    one, eight = run([depthwise(r=3, s=3, p=6, q=6, g=1), operator], tiles="auto").costs
    assert 7 * one.cycles / 2 < eight.cycles <= 8 * one.cycles


def test_what_it_cannot_run_is_named():
    with pytest.raises(InvalidInput, match="softmax"):
        run_one(elementwise("softmax", {"P": 4, "C": 4}, reduced=("C",)))
    with pytest.raises(InvalidInput, match="kernel 1 x 3"):
        run([conv2d(r=1, s=3, p=4, q=4, c=4, k=4)])
    with pytest.raises(InvalidInput, match="tiles: 'best'"):
        run([samples.OPERATORS["matmul"]], tiles="best")
    with pytest.raises(InvalidInput, match="latency: 0"):
        run([samples.OPERATORS["matmul"]], latency=0)


def run_one(operator):
    from tilewright.plugins.simulators.gemmini.lowering import lower

    return lower(operator, Machine(), None)


def test_other_architectures_are_refused():
    architecture = samples.architecture()
    schedule = samples.schedule(samples.OPERATORS["matmul"], architecture)
    ctx = HostContext("simulators", "gemmini", Budget())
    with pytest.raises(InvalidArchitecture, match="target 'gemmini'"):
        registry.load("simulators", "gemmini").run(SimRequest((schedule,), architecture), ctx)


def test_a_preload_without_compute_never_ends():
    with pytest.raises(InvalidInput, match=r"command 1, Preload.*never ends"):
        simulate(Machine(), [ConfigExecute(), Preload(0, 16, 16, GARBAGE, 16, 16)])
    simulate(Machine(), [ConfigExecute(), Preload(0, 16, 16, GARBAGE, 16, 16), Compute(64, 16, 16, True)])
