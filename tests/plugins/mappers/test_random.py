"""Random search: what it draws is valid, and more of it is better."""

from __future__ import annotations

import math

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Compute, Constraints, Level
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, Candidate, MapRequest
from tilewright.protocol.workload import Operator, conv2d, matmul

GEMMINI = registry.load("targets", "gemmini")


def search(operator: Operator, evaluations: int, seed: int = 0, subspace: tuple[int, int] = (0, 1)) -> list[Candidate]:
    ctx = HostContext("mappers", "random", Budget(evaluations=evaluations), seed)
    request = MapRequest(operator, GEMMINI.architecture(), GEMMINI.constraints(), subspace=subspace)
    found = []
    try:
        for candidate in registry.load("mappers", "random").search(request, ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found


def test_candidates_improve_and_are_valid() -> None:
    operator = conv2d(r=3, s=3, p=28, q=28, c=64, k=64, stride=(2, 2))
    problem = ln.Problem(operator, GEMMINI.architecture(), GEMMINI.constraints())
    values = [ln.cost(problem, candidate.mapping).edp for candidate in search(operator, 3000)]
    assert values == sorted(values, reverse=True)
    assert len(values) > 1


def test_seeds_differ() -> None:
    operator = matmul(p=64, c=64, k=64)
    assert search(operator, 200, seed=1)[-1] != search(operator, 200, seed=2)[-1]


def test_shares_of_the_mapspace_are_disjoint() -> None:
    operator = matmul(p=64, c=64, k=64)
    shares = [{candidate.mapping for candidate in search(operator, 1000, subspace=(i, 3))} for i in range(3)]
    assert all(shares)
    assert not (shares[0] & shares[1] | shares[1] & shares[2] | shares[0] & shares[2])


def test_where_nothing_fits_the_violations_are_seen() -> None:
    """A level too small for a single word: the search ends without a candidate, after scoring mappings that say why."""
    tiny = Architecture(
        "tiny",
        Compute("MAC", 1),
        (
            Level("Buffer", 8, 8, keeps=("Weights", "Inputs", "Outputs"), read_energy_pj=1.0),
            Level("DRAM", keeps=("Weights", "Inputs", "Outputs"), read_energy_pj=1.0),
        ),
    )
    ctx = HostContext("mappers", "random", Budget(evaluations=400), 0)
    found = []
    try:
        for candidate in registry.load("mappers", "random").search(MapRequest(matmul(p=4, c=4, k=4), tiny, Constraints()), ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    assert found == []
    assert ctx.evaluations == 400


def test_finds_the_best_of_a_mapspace_small_enough_to_enumerate() -> None:
    """P = C = K = 2 on one buffer of 8 words: the whole mapspace has a few hundred points."""
    from itertools import permutations, product

    from tilewright.protocol.mapping import LevelMapping, Loop, Mapping

    tensors = ("Weights", "Inputs", "Outputs")
    machine = Architecture(
        "machine",
        Compute("MAC", 2, 2),
        (
            Level("Buffer", 64, 8, keeps=tensors, read_energy_pj=1, fill_energy_pj=1, update_energy_pj=1),
            Level("DRAM", keeps=tensors, read_energy_pj=50, fill_energy_pj=50, update_energy_pj=50, shared_bandwidth=1),
        ),
    )
    operator = matmul(p=2, c=2, k=2)
    problem = ln.Problem(operator, machine)
    mappings = []
    for places in product(("spatial", "inner", "outer"), repeat=3):
        if places.count("spatial") > 1:
            continue
        chosen = dict(zip("PCK", places, strict=True))
        for order in permutations("PCK"):
            blocks = {place: tuple(Loop(d, 2) for d in order if chosen[d] == place) for place in ("spatial", "inner", "outer")}
            mappings.append(
                Mapping(
                    (
                        LevelMapping("Buffer", blocks["spatial"], blocks["inner"], tensors),
                        LevelMapping("DRAM", (), blocks["outer"], tensors),
                    )
                )
            )
    batch = ln.evaluate(ln.Batch.from_mappings(problem, mappings))
    best = min(float(e) for e, ok in zip(batch.edp, batch.valid, strict=True) if ok)
    ctx = HostContext("mappers", "random", Budget(evaluations=2000), 0)
    found = []
    try:
        for candidate in registry.load("mappers", "random").search(MapRequest(operator, machine), ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    assert math.isclose(ln.cost(problem, found[-1].mapping).edp, best)
