"""Small operators and an architecture that the suites exercise plugins with."""

from __future__ import annotations

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Compute, Level
from tilewright.protocol.cost import Claim, Schedule
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import Operator, Workload, batched_matmul, conv2d, depthwise, matmul

TENSORS = ("Weights", "Inputs", "Outputs")

OPERATORS: dict[str, Operator] = {
    "matmul": matmul(p=24, c=32, k=20),
    "vector": matmul(p=1, c=64, k=30),
    "prime": matmul(p=13, c=17, k=7),
    "attention": batched_matmul(g=3, p=8, c=16, k=8),
    "conv": conv2d(r=3, s=3, p=8, q=8, c=8, k=8, padding=(1, 1)),
    "strided": conv2d(r=3, s=1, p=6, q=4, c=4, k=6, stride=(2, 1)),
    "depthwise": depthwise(r=3, s=3, p=6, q=6, g=8),
}


def architecture() -> Architecture:
    """A 4 x 4 array over private registers, a 4 KiB buffer and DRAM; the figures are invented."""
    return Architecture(
        name="sample",
        compute=Compute("MAC", 16, 4, 4, energy_pj=0.5),
        levels=(
            Level(
                "Registers",
                512,
                16,
                instances=16,
                mesh_x=4,
                mesh_y=4,
                keeps=TENSORS,
                read_energy_pj=0.1,
                fill_energy_pj=0.1,
                update_energy_pj=0.1,
            ),
            Level(
                "Buffer", 4 * 8192, 8, keeps=TENSORS, shared_bandwidth=16.0, read_energy_pj=2.0, fill_energy_pj=2.0, update_energy_pj=2.0
            ),
            Level("DRAM", None, 8, keeps=TENSORS, shared_bandwidth=4.0, read_energy_pj=100.0, fill_energy_pj=100.0, update_energy_pj=100.0),
        ),
    )


def outermost(operator: Operator, target: Architecture) -> Mapping:
    """All loops at the outermost level: valid wherever every buffer holds one word per tensor."""
    keep = ln.default_keep(ln.Problem(operator, target))
    names = ln.Problem(operator, target).tensors
    levels = [
        LevelMapping(level.name, keep=tuple(n for n, k in zip(names, keep[i], strict=True) if k)) for i, level in enumerate(target.levels)
    ]
    last = levels[-1]
    levels[-1] = LevelMapping(last.level, temporal=tuple(Loop(d.name, d.bound) for d in operator.dims if d.bound > 1), keep=last.keep)
    return Mapping(tuple(levels))


def schedule(operator: Operator, target: Architecture) -> Schedule:
    """The outermost mapping with its cost."""
    mapping = outermost(operator, target)
    cost = ln.cost(ln.Problem(operator, target), mapping)
    return Schedule(operator, mapping, cost, Claim(), "edp", content_key(target))


def workload() -> Workload:
    """Three distinct operators, one of them twice."""
    pairs = [
        ("first", OPERATORS["matmul"]),
        ("second", OPERATORS["matmul"]),
        ("third", OPERATORS["conv"]),
        ("fourth", OPERATORS["attention"]),
    ]
    return Workload.build("sample", pairs)
