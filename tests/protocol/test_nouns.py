"""Architectures, mappings, costs, designs: what they refuse, and what follows from them."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level, LevelConstraint, Parameter
from tilewright.protocol.codec import decode, encode
from tilewright.protocol.cost import AreaRow, Claim, Cost, EnergyRow, LatencyRow, Schedule
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.errors import InvalidArchitecture, InvalidMessage
from tilewright.protocol.kernel import Cache, InstructionLibrary, RegisterFile
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import matmul

GRID = Compute("mac", 64, 8, 8)


def chip(*levels: Level, compute: Compute = GRID) -> Architecture:
    return Architecture("chip", compute, levels)


GOOD = chip(
    Level("registers", 128, instances=64, mesh_x=8, mesh_y=8),
    Level("rows", 1000, word_bits=16, instances=8, mesh_y=8, multiple_buffering=2),
    Level("DRAM"),
)


def test_levels_and_fanout() -> None:
    assert GOOD.level_names == ("registers", "rows", "DRAM")
    assert GOOD.index("rows") == 1
    assert GOOD.level("DRAM").name == "DRAM"
    assert [GOOD.fanout(index) for index in range(3)] == [(1, 1), (8, 1), (1, 8)]
    assert GOOD.peak_macs_per_cycle == 64
    with pytest.raises(KeyError, match="cache"):
        GOOD.level("cache")


def test_capacities_round_down() -> None:
    rows = GOOD.level("rows")
    assert (rows.capacity_words, rows.usable_words) == (62, 31)
    assert (GOOD.level("DRAM").capacity_words, GOOD.level("DRAM").usable_words) == (None, None)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (chip, "levels: empty, expected at least one storage level"),
        (lambda: chip(Level("a"), Level("a")), r"levels: \['a', 'a'\] names a level twice"),
        (lambda: chip(Level("a", instances=3)), "a.instances: 3, expected mesh_x x mesh_y = 1"),
        (lambda: chip(Level("a"), compute=Compute("mac", 5, 2, 2)), "mac.instances: 5, expected mesh_x x mesh_y = 4"),
        (lambda: chip(Level("a", instances=3, mesh_x=3)), "a: mesh 3 x 1 does not divide that of mac, 8 x 8"),
        (
            lambda: chip(Level("a", instances=2, mesh_x=2), Level("b", instances=4, mesh_x=4)),
            "b: mesh 4 x 1 does not divide that of a, 2 x 1",
        ),
        (lambda: chip(Level("a", instances=0, mesh_x=0)), "a.instances: 0, expected >= 1"),
        (lambda: chip(Level("a", instances=1, mesh_x=-1, mesh_y=-1)), "a.mesh_x: -1, expected >= 1"),
    ],
)
def test_architectures_that_cannot_be(make: Any, text: str) -> None:
    with pytest.raises(InvalidArchitecture, match=text):
        make()


def test_a_bandwidth_of_zero_is_refused_on_the_wire() -> None:
    plain = msgspec.to_builtins(GOOD)
    plain["levels"][1]["read_bandwidth"] = 0
    with pytest.raises(InvalidMessage, match=r"Expected `float` > 0\.0 - at `\$\.levels\[1\]\.read_bandwidth`"):
        decode(encode(plain), Architecture)


def test_parameters() -> None:
    assert Parameter("rows", "PEs", 2, 11, 5, 3).values == (2, 5, 8, 11)
    assert Parameter("size", "KiB", 3, 100, 12, 2, True).values == (3, 6, 12, 24, 48, 96)
    assert Parameter("size", "KiB", 1, 2**50, 1, 2, True).values == tuple(2**power for power in range(51))
    assert Parameter("fixed", "", 7, 7, 7, 2, True).values == (7,)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((2, 8, 1), r"x\.default: 1, expected a value from 2 to 8"),
        ((8, 2, 4), r"x\.default: 4, expected a value from 8 to 2"),
        ((2, 8, 4, 0), r"x\.step: 0, expected >= 1"),
        ((2, 8, 4, 1, True), r"x\.step: 1, expected >= 2"),
        ((0, 8, 4, 2, True), r"x\.low: 0, expected >= 1 for a geometric parameter"),
    ],
)
def test_parameters_that_cannot_be(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InvalidArchitecture, match=text):
        Parameter("x", "KiB", *arguments)


def test_design_spaces() -> None:
    space = DesignSpace((Parameter("rows", "PEs", 2, 16, 8), Parameter("size", "KiB", 1, 64, 4, 2, True)))
    assert space.resolve({}) == {"rows": 8, "size": 4}
    assert space.resolve({"size": 64}) == {"rows": 8, "size": 64}
    with pytest.raises(InvalidArchitecture, match=r"design-space parameter 'row' is unknown; did you mean 'rows'\?"):
        space.resolve({"row": 4})
    for value in (1, 17, True, 4.0):
        with pytest.raises(InvalidArchitecture, match=f"rows: {value}, expected an integer from 2 to 16 PEs"):
            space.resolve({"rows": value})  # type: ignore[dict-item]


def test_constraints() -> None:
    constraints = Constraints((LevelConstraint("rows", spatial_dims=("K",)),))
    assert constraints.level("rows").spatial_dims == ("K",)
    assert constraints.level("DRAM") == LevelConstraint("DRAM")


NEST = Mapping(
    (
        LevelMapping("registers", (Loop("C", 8), Loop("K", 1)), (Loop("P", 4), Loop("C", 1)), ("Weights",)),
        LevelMapping("rows", (Loop("K", 8, "Y"),), (Loop("Q", 3, ragged=True),), ("Outputs", "Inputs")),
        LevelMapping("DRAM", (), (Loop("K", 2, "Y"),)),
    )
)


def test_a_mapping_is_drawn_outermost_first() -> None:
    assert str(NEST).splitlines() == [
        "DRAM [-]",
        "  for K in 2",
        "rows [Outputs Inputs]",
        "    for Q in ~3",
        "      parallel-for K in 8 (Y)",
        "registers [Weights]",
        "        for P in 4",
        "          parallel-for C in 8 (X)",
    ]


def test_equal_nests_are_equal() -> None:
    canonical = NEST.canonical()
    assert canonical.levels[0] == LevelMapping("registers", (Loop("C", 8),), (Loop("P", 4),), ("Weights",))
    assert canonical.levels[1].keep == ("Inputs", "Outputs")
    assert canonical.levels[1].spatial == (Loop("K", 8, "Y"),), "the axis of a spatial loop counts"
    assert canonical.levels[2].temporal == (Loop("K", 2),), "that of a temporal one means nothing"
    assert canonical.canonical() == canonical
    reordered = msgspec.structs.replace(NEST.levels[0], temporal=(Loop("P", 2), Loop("Q", 2)))
    swapped = msgspec.structs.replace(reordered, temporal=reordered.temporal[::-1])
    assert Mapping((reordered,)).canonical() != Mapping((swapped,)).canonical(), "the order of loops counts"


def test_what_follows_from_a_mapping() -> None:
    assert NEST.spatial_size == 64
    assert NEST.is_ragged
    assert not Mapping(NEST.levels[::2]).is_ragged


COST = Cost(
    "timeloop/1",
    "analytical",
    100,
    (EnergyRow("DRAM", "read", "Weights", 10.0, 0.1), EnergyRow("mac", "compute", "", 1000.0, 0.25)),
    (LatencyRow("compute", 60), LatencyRow("DRAM", 100)),
    (AreaRow("mac", 0.5), AreaRow("rows", 0.25)),
)


def test_costs_add_up() -> None:
    assert COST.energy_pj == 251.0
    assert COST.edp == 25100.0
    assert COST.area_mm2 == 0.75
    assert COST.bottleneck == "DRAM"
    assert [COST.objective(name) for name in ("edp", "energy", "latency")] == [25100.0, 251.0, 100.0]
    assert Cost("m", "cycle", 0).bottleneck == ""
    tenths = Cost("m", "cycle", 1, tuple(EnergyRow("x", "read", "", 1.0, 0.1) for _ in range(10)))
    assert tenths.energy_pj == 1.0, "exactly rounded, not summed up with errors"


def test_designs_add_up() -> None:
    task = ScheduledTask(Schedule(matmul(p=1, c=1, k=1), NEST, COST, Claim(), "edp", "key"), 3, "layer")
    design = Design((Core("core0", GOOD),), (task, msgspec.structs.replace(task, count=1)), "edp")
    assert design.energy_pj == 4 * 251.0
    assert design.cycles == 400
    assert design.edp == 4 * 251.0 * 400
    assert design.value() == design.edp
    assert msgspec.structs.replace(design, objective="energy").value() == design.energy_pj
    assert msgspec.structs.replace(design, objective="latency").value() == 400.0
    assert math.isclose(Design((), (), "edp").value(), 0.0)


def test_instruction_libraries() -> None:
    registers = RegisterFile("vector", 16, {"f32": "__m256"})
    library = InstructionLibrary("avx2", {"f32": 8}, (registers,), ())
    assert library.register_file("vector") is registers
    assert library.register_file("mask") is None
    assert Cache("L1", 32768, 8).sets == 64
