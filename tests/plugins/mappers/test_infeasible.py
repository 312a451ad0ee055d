"""Where nothing fits: what rejects how many mappings, the smallest change, and that this change indeed helps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Compute, Constraints, Level, LevelConstraint
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Infeasible
from tilewright.protocol.plugin import Budget, Candidate, MapRequest
from tilewright.protocol.workload import Operator, conv2d, matmul
from tilewright.services.mapper.infeasible import Tally

KEEPS = ("Weights", "Inputs", "Outputs")
OPERATOR = matmul(p=8, c=8, k=8)


def machine(inner: int, outer: int) -> Architecture:
    """Two buffers of so many words."""
    prices = {"read_energy_pj": 1.0, "fill_energy_pj": 1.0, "update_energy_pj": 1.0}
    levels = [Level(name, 8 * words, keeps=KEEPS, **prices) for name, words in (("Inner", inner), ("Outer", outer))]  # type: ignore[arg-type]
    return Architecture("tiny", Compute("MAC", 1), (*levels, Level("DRAM", keeps=KEEPS, **prices)))  # type: ignore[arg-type]


def search(
    architecture: Architecture, constraints: Constraints | None = None, operator: Operator = OPERATOR, **options: Any
) -> tuple[list[Candidate], Infeasible]:
    tally = Tally(registry.load("simulators", "analytical"))
    ctx = HostContext("mappers", "optimal", Budget(), observe=tally.add)
    request = MapRequest(operator, architecture, constraints or Constraints(), options=options)
    return list(registry.load("mappers", "optimal").search(request, ctx)), tally.infeasible(operator)


def test_buffers_that_hold_no_tile_at_all() -> None:
    """One word of each tensor is the least there is: 3 words."""
    found, said = search(machine(2, 1))
    assert not found
    assert said.smallest_change == "capacity of Inner (2 words): 1 more words; capacity of Outer (1 words): 2 more words"
    capacities = {each.constraint: each.rejected for each in said.violations if each.constraint.startswith("capacity")}
    assert set(capacities.values()) == {said.tried}
    assert search(machine(3, 3))[0]


def test_a_mapspace_in_which_little_fits_is_walked_into() -> None:
    """All loops but two must be at the inner level: of random draws hardly any fits."""
    rules = Constraints((LevelConstraint("DRAM", temporal_dims=("P", "K")), LevelConstraint("Outer", temporal_dims=("P",))))
    found, _ = search(machine(17, 40), rules)
    assert found
    ln.cost(ln.Problem(OPERATOR, machine(17, 40), rules), found[-1].mapping)


def test_constraints_that_leave_a_dim_nowhere_to_go() -> None:
    nowhere = Constraints(tuple(LevelConstraint(name, temporal_dims=("P", "K")) for name in ("Inner", "Outer", "DRAM")))
    found, said = search(machine(100, 100), nowhere)
    assert not found
    assert said.smallest_change == "temporal C at DRAM: 7 more factor over 1"


@pytest.mark.parametrize("mapper", ["polish", "optimal", "portfolio"])
def test_where_cosa_fails_the_others_do_not(mapper: str) -> None:
    """AlexNet's 5x5 on Simba: the released program's tile exceeds the global buffer; a valid mapping is found all the same."""
    simba = registry.load("targets", "simba").architecture()
    operator = conv2d(r=5, s=5, p=27, q=27, c=64, k=192)
    request = MapRequest(operator, simba)
    plugin = registry.load("mappers", mapper)
    *_, last = plugin.search(
        msgspec.structs.replace(request, options={"kicks": 0} if "kicks" in plugin.options else {}),
        HostContext("mappers", mapper, Budget()),
    )
    assert ln.cost(ln.Problem(operator, simba), last.mapping).edp > 0
