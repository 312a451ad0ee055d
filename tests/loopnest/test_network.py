"""Meshes of routers against a walk of every packet over every link, and by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.evaluate import figures
from tilewright.loopnest.mapspace import Mapspace
from tilewright.protocol.architecture import Architecture, Compute, Level, Network
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import Operator, batched_matmul, matmul

ALL = ("Weights", "Inputs", "Outputs")
COLUMNS, ROWS = 4, 2


def machine(network: Network, keeps: tuple[str, ...] = ALL) -> Architecture:
    """Eight units with a register each, 4 columns x 2 rows of them on a buffer."""
    return Architecture(
        "mesh",
        Compute("MAC", 8, COLUMNS, ROWS),
        (
            Level("Register", 16 * 512, word_bits=16, instances=8, mesh_x=COLUMNS, mesh_y=ROWS, keeps=ALL, read_energy_pj=1.0),
            Level("Buffer", 8 * 4096, network=network, keeps=keeps, read_energy_pj=1.0),
            Level("DRAM", keeps=ALL, read_energy_pj=1.0),
        ),
    )


def walked(operator: Operator, architecture: Architecture, mapping: Mapping) -> int:
    """Cycles by walking packets: where each goes follows from who needs the same words; how many words, from the traffic."""
    problem = ln.Problem(operator, architecture)
    found, validity = figures(ln.Batch.from_mappings(problem, [mapping]))
    assert validity.valid.all()
    network = architecture.levels[1].network
    assert network is not None and network.flit_bits is not None
    loops = mapping.levels[1].spatial
    along = {axis: [loop for loop in loops if loop.axis == axis and loop.factor > 1] for axis in ("X", "Y")}
    nodes = {}
    for x, xs in enumerate(itertools.product(*(range(loop.factor) for loop in along["X"]))):
        for y, ys in enumerate(itertools.product(*(range(loop.factor) for loop in along["Y"]))):
            nodes[x, y] = dict(zip((loop.dim for loop in (*along["X"], *along["Y"])), (*xs, *ys), strict=True))
    load: Counter[object] = Counter()
    for t, name in enumerate(problem.tensors):
        dims = operator.tensor(name).dims
        shared = network.reduction if name == operator.output else network.multicast
        groups: dict[object, list[tuple[int, int]]] = {}
        for node, place in nodes.items():
            key = tuple(place.get(dim, 0) for dim in dims)
            groups.setdefault(key if shared else node, []).append(node)
        port = "near" if name in mapping.levels[1].keep else "far"
        asked = float(found.traffic.asked[1][t][0])
        if name == operator.output:
            returned = asked - float(found.traffic.share[1][0]) if name in mapping.levels[0].keep else 0.0
            moves = [("up", asked), ("down", returned)]
        else:
            moves = [("down", asked)]
        for way, words in moves:
            flits = words / len(groups) * 16 / network.flit_bits * (1 + 1 / network.payload_flits)
            for members in groups.values():
                links: set[object] = {(way, port)}
                for x, y in members:
                    links |= {(way, "row", port, at) for at in range(x)} | {(way, "column", x, at) for at in range(y + 1)}
                load.update(dict.fromkeys(links, flits))
    used = [math.prod(loop.factor for loop in along[axis]) for axis in ("X", "Y")]
    return math.ceil(round(max(load.values()), 6)) + sum(used)


@pytest.mark.parametrize("keeps", [ALL, ("Inputs", "Outputs"), ("Weights",)])
@pytest.mark.parametrize(
    "network", [Network(flit_bits=64), Network(flit_bits=32, payload_flits=1, multicast=False), Network(flit_bits=64, reduction=False)]
)
def test_the_busiest_link_is_that_of_a_walk(network: Network, keeps: tuple[str, ...]) -> None:
    architecture = machine(network, keeps)
    for operator in (matmul(p=8, c=8, k=8), batched_matmul(g=4, p=4, c=8, k=4)):
        space = Mapspace(ln.Problem(operator, architecture))
        batch = space.batch(space.sample(np.random.default_rng(1), 40))
        result, _ = figures(batch)
        for at in range(len(batch)):
            mapping = batch.mapping(at)
            assert int(result.network_cycles[1][at]) == walked(operator, architecture, mapping), str(mapping)


def test_one_port_by_hand() -> None:
    """Weights 8 x 16 bits and inputs 2 x 16 bits leave through one port: 160 bits, 2.5 flits, 1.25 times that with headers."""
    spatial = (Loop("K", 4, "X"), Loop("C", 2, "Y"))
    mapping = Mapping((LevelMapping("Register", keep=ALL), LevelMapping("Buffer", spatial, keep=ALL), LevelMapping("DRAM", keep=ALL)))
    cost = ln.cost(ln.Problem(matmul(p=1, c=2, k=4), machine(Network(flit_bits=64))), mapping)
    assert next(row.cycles for row in cost.latency if row.resource == "Buffer network") == math.ceil(2.5 * 1.25) + 4 + 2


def test_routers_need_exact_mappings() -> None:
    real = pytest.importorskip("tilewright.loopnest.real")
    problem = ln.Problem(matmul(p=2, c=2, k=2), machine(Network(flit_bits=64)))
    with pytest.raises(InvalidInput, match="routed networks"):
        real.evaluate_real(problem, None, None, None, None)
