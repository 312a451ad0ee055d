"""The plugin: conformance, tilings against published figures, sweeps, attribution, trouble."""

import itertools

import msgspec
import pytest

from tilewright.plugins.simulators.gemmini import host
from tilewright.plugins.simulators.gemmini.commands import GARBAGE, Compute, ConfigExecute, Preload
from tilewright.plugins.simulators.gemmini.loop_matmul import SOFTMAX
from tilewright.plugins.simulators.gemmini.machine import LEAN, Machine, Memory
from tilewright.plugins.simulators.gemmini.packets import read_packets, write_packets
from tilewright.plugins.simulators.gemmini.tiling import ConvShape, tile_conv, tile_matmul, tile_norm
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


def test_tiles_of_a_softmax_hold_whole_rows():
    assert tile_matmul(128, 128, 64, Machine(), SOFTMAX).j == 8
    assert tile_norm(128, 768, Machine()) == 16 * (512 // 16 // 48) or tile_norm(128, 768, Machine()) == 16


def test_channel_tiles_grow_by_one():
    """The library grows channels by one, so tiles that are no multiple of the array occur."""
    assert tile_conv(ConvShape(1, 14, 14, 512, 512, 7, 7, 3, 2, 1), Machine()).kchs == 113


def test_requests_are_the_smallest_that_bring_most():
    assert [packet.size for packet in read_packets(48, 64, 16, 16, 64)] == [16, 64]
    assert [packet.size for packet in read_packets(36, 64, 16, 16, 64)] == [32, 64]
    assert write_packets(48, 64, 16, 64) == (1, 4)


def cycles(m, k, n, machine, half=0):
    return simulate(
        machine, host.matmul(host.Matmul(m, n, k, 1 << 20, 1 << 24, 1 << 26, a_stride=512, b_stride=512, c_stride=512), machine), half
    ).cycles


def lean(**fields):
    memory = Memory(latency=fields.pop("latency", 40))
    return msgspec.structs.replace(LEAN, memory=memory, **fields)


def test_latency_sweep_of_the_rtl():
    """16 x 512 x 512 takes the same until the requests in flight no longer hide the latency (RTL, this very sweep)."""
    for latency, measured in {5: 29169, 20: 29199, 40: 29239, 100: 29359, 200: 45033, 400: 88116}.items():
        assert cycles(16, 512, 512, lean(latency=latency), half=1) == pytest.approx(measured, rel=0.10)


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
    taken = [cycles(*shape, lean(latency=latency)) for latency in (5, 20, 40, 100, 200, 400)]
    assert all(later > 0.98 * earlier for earlier, later in itertools.pairwise(taken))
    assert taken[-1] > 1.1 * taken[0]
    assert cycles(*shape, lean(single_ported=False)) < cycles(*shape, lean())


def test_larger_accumulators_help_a_slow_memory():
    """The fewer partial tiles, the less is loaded again."""
    memory = Memory(latency=40, cache_bytes=64 * 1024, dram_bytes_per_cycle=4)
    machines = [msgspec.structs.replace(LEAN, memory=memory, accumulator_bytes=kib * 1024) for kib in (64, 128)]
    taken = [cycles(512, 512, 512, machine) for machine in machines]
    assert taken == sorted(taken, reverse=True)


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
