"""The peers' published figures, each under its own convention: ZigZag, AccelForge, SCALE-Sim on one weight-stationary machine.

The anchors were measured with zigzag-dse 3.9.1, accelforge 1.0.467 and scalesim 3.0.0 on ZigZag's ``tpu_like`` inputs.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level
from tilewright.protocol.cost import Cost
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, conv2d, matmul

ZIGZAG = ln.Conventions(outputs="zigzag", latency="first-load")
ACCELFORGE = ln.Conventions(outputs="accelforge", latency="roofline")
CONV = conv2d(r=3, s=3, p=56, q=56, c=64, k=64)
PROJECTION = matmul(p=128, c=768, k=768)


def register(name: str, tensor: str, capacity: int, word: int, energy: float) -> Level:
    return Level(
        name,
        capacity,
        word,
        instances=1024,
        mesh_x=32,
        mesh_y=32,
        keeps=(tensor,),
        read_energy_pj=energy,
        fill_energy_pj=energy,
        update_energy_pj=energy,
    )


MACHINE = Architecture(
    "tpu_like",
    Compute("MAC", 1024, 32, 32, energy_pj=0.04),
    (
        register("OutputRegister", OUTPUTS, 16, 16, 0.021),
        register("WeightRegister", WEIGHTS, 1024, 8, 0.095),
        Level(
            "SRAM",
            16_777_216,
            block_words=256,
            read_bandwidth=256.0,
            write_bandwidth=256.0,
            keeps=(INPUTS, OUTPUTS),
            read_energy_pj=416.16,
            fill_energy_pj=378.4,
            update_energy_pj=378.4,
        ),
        Level(
            "DRAM",
            block_words=8,
            shared_bandwidth=8.0,
            keeps=(WEIGHTS, INPUTS, OUTPUTS),
            read_energy_pj=700.0,
            fill_energy_pj=750.0,
            update_energy_pj=750.0,
        ),
    ),
)


def nest(output: tuple[Loop, ...], weight: tuple[Loop, ...], sram: tuple[Loop, ...]) -> Mapping:
    """Input channels down the array, output channels across it; all DRAM loops trivial."""
    return Mapping(
        (
            LevelMapping("OutputRegister", temporal=output, keep=(OUTPUTS,)),
            LevelMapping("WeightRegister", temporal=weight, keep=(WEIGHTS,)),
            LevelMapping("SRAM", (Loop("K", 32, "X"), Loop("C", 32, "Y")), sram, (INPUTS, OUTPUTS)),
            LevelMapping("DRAM", keep=(WEIGHTS, INPUTS, OUTPUTS)),
        )
    )


#: ZigZag's best orders (inner to outer here).
CONV_NEST = nest((Loop("C", 2), Loop("S", 3), Loop("R", 3)), (), (Loop("Q", 56), Loop("P", 56), Loop("K", 2)))


def gemm_nest(op: Operator, *, weights_resident: bool = False) -> Mapping:
    bounds = op.bounds
    columns = Loop("K", bounds["K"] // 32)
    inner = (Loop("C", bounds["C"] // 32),)
    if weights_resident:
        return nest(inner, (columns,), (Loop("P", bounds["P"]),))
    return nest(inner, (), (Loop("P", bounds["P"]), columns))


def by_component(cost: Cost) -> dict[str, float]:
    """pJ per component, and per component and tensor."""
    sums: dict[str, float] = defaultdict(float)
    for row in cost.energy:
        sums[row.component] += row.energy_pj
        sums[f"{row.component} {row.tensor[:1]}"] += row.energy_pj
    return sums


@pytest.mark.parametrize(
    ("op", "mapping", "expected", "total"),
    [
        (
            CONV,
            CONV_NEST,
            {
                "MAC": 4_624_220,
                "WeightRegister": 10_986_025,
                "OutputRegister": 4_990_304,
                "SRAM": 6_814_019,
                "SRAM O": 622_935,
                "SRAM I": 6_191_084,
                "DRAM": 40_880_000,
                "DRAM O": 18_816_000,
                "DRAM W": 3_225_600,
                "DRAM I": 18_838_400,
            },
            68.2946,
        ),
        (
            PROJECTION,
            gemm_nest(PROJECTION),
            {
                "MAC": 3_019_899,
                "WeightRegister": 7_228_293,
                "OutputRegister": 3_236_954,
                "SRAM": 4_285_747,
                "SRAM O": 305_111,
                "SRAM I": 3_980_636,
                "DRAM": 69_427_200,
                "DRAM O": 9_216_000,
                "DRAM W": 51_609_600,
                "DRAM I": 8_601_600,
            },
            87.1981,
        ),
    ],
)
def test_zigzag_energies_to_the_printed_digit(op: Operator, mapping: Mapping, expected: dict[str, int], total: float) -> None:
    cost = ln.cost(ln.Problem(op, MACHINE, conventions=ZIGZAG), mapping)
    found = by_component(cost)
    assert {name: round(found[name]) for name in expected} == expected
    assert round(cost.energy_pj / 1e6, 4) == total
    assert cost.conventions == ("outputs=zigzag", "latency=first-load")


@pytest.mark.parametrize(
    ("op", "mapping", "cycles"),
    [
        (CONV, CONV_NEST, 139_872),
        (PROJECTION, gemm_nest(PROJECTION), 98_367),
        # Parts of a BERT-base encoder layer, sequence 512; FFN2 (1,286,206) is not reproduced: its mapping was not recorded.
        (matmul(p=512, c=768, k=768), gemm_nest(matmul(p=512, c=768, k=768)), 344_128),
        (matmul(p=512, c=64, k=512), gemm_nest(matmul(p=512, c=64, k=512), weights_resident=True), 36_927),
        (matmul(p=512, c=512, k=64), gemm_nest(matmul(p=512, c=512, k=64), weights_resident=True), 49_216),
        (matmul(p=512, c=768, k=3072), gemm_nest(matmul(p=512, c=768, k=3072)), 1_228_864),
    ],
)
def test_zigzag_latency(op: Operator, mapping: Mapping, cycles: int) -> None:
    cost = ln.cost(ln.Problem(op, MACHINE, conventions=ZIGZAG), mapping)
    assert cost.cycles == cycles
    parts = {row.resource: row.cycles for row in cost.latency}
    busy = max(parts[name] for name in ("MAC", "OutputRegister", "WeightRegister", "SRAM"))
    assert busy + parts["first load"] + parts["stall"] + parts["array fill"] == cycles


@pytest.mark.parametrize(
    ("op", "mapping", "energy", "register", "cycles", "resources"),
    [
        (CONV, CONV_NEST, 65.7320, 2_427_715.58, 112_896, {"MAC": 112_896, "DRAM": 56_608, "SRAM": 14_896}),
        (PROJECTION, gemm_nest(PROJECTION), 85.5466, 1_585_446.91, 98_304, {"MAC": 73_728, "DRAM": 98_304}),
    ],
)
def test_accelforge(op: Operator, mapping: Mapping, energy: float, register: float, cycles: int, resources: dict[str, int]) -> None:
    cost = ln.cost(ln.Problem(op, MACHINE, conventions=ACCELFORGE), mapping)
    assert round(cost.energy_pj / 1e6, 4) == energy
    assert by_component(cost)["OutputRegister"] == pytest.approx(register, abs=0.01)
    assert cost.cycles == cycles
    found = {row.resource: row.cycles for row in cost.latency}
    assert {name: found[name] for name in resources} == resources


@pytest.mark.parametrize(
    ("op", "weight", "outer", "cycles", "prefetched"),
    [
        # 36 folds of 3136 rows, 576 folds of 128: folds x (32 + rows + 62) - 1.
        (CONV, (Loop("Q", 56), Loop("P", 56), Loop("C", 2), Loop("S", 3), Loop("R", 3)), (Loop("K", 2),), 116_279, 36 * (3136 + 62) - 1),
        (PROJECTION, (Loop("P", 128), Loop("C", 24)), (Loop("K", 24),), 127_871, 576 * (128 + 62) - 1),
    ],
)
def test_scale_sim(op: Operator, weight: tuple[Loop, ...], outer: tuple[Loop, ...], cycles: int, prefetched: int) -> None:
    mapping = Mapping(
        (
            LevelMapping("OutputRegister"),
            LevelMapping("WeightRegister", temporal=weight, keep=(WEIGHTS,)),
            LevelMapping("SRAM", (Loop("K", 32, "X"), Loop("C", 32, "Y")), outer, (INPUTS, OUTPUTS)),
            LevelMapping("DRAM", keep=(WEIGHTS, INPUTS, OUTPUTS)),
        )
    )
    free = Estimator("free")
    unbounded = Architecture(
        "array",
        MACHINE.compute,
        tuple(
            Level(level.name, instances=level.instances, mesh_x=level.mesh_x, mesh_y=level.mesh_y, read_energy_pj=free)
            for level in MACHINE.levels
        ),
    )
    assert ln.cost(ln.Problem(op, unbounded, conventions=ln.Conventions(array="systolic")), mapping).cycles == cycles
    assert ln.cost(ln.Problem(op, unbounded, conventions=ln.Conventions(array="systolic-prefetch")), mapping).cycles == prefetched


def test_walk_refuses_what_it_does_not_define() -> None:
    with pytest.raises(InvalidInput, match=r"outputs=zigzag.*walk"):
        ln.Problem(CONV, MACHINE, semantics="walk", conventions=ZIGZAG)
