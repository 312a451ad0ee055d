"""Cancelled at any moment, the best mapping so far is kept, with a bound that is honest about what was not looked at."""

from __future__ import annotations

import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, MapRequest, Options
from tilewright.protocol.workload import conv2d

SIMBA = registry.load("targets", "simba").architecture()
OPERATOR = conv2d(r=3, s=3, p=14, q=14, c=16, k=32)


class Asked:
    """Says that a search is cancelled from the n-th time on that it asks."""

    def __init__(self, times: int) -> None:
        self.left, self.asked = times, 0

    def __call__(self) -> bool:
        self.asked += 1
        self.left -= 1
        return self.left < 0


def search(mapper: str, options: Options, asked: Asked) -> tuple[float, float | None, int]:
    """EDP and bound of the last candidate, and evaluations used."""
    ctx = HostContext("mappers", mapper, Budget(), 0, cancelled=asked)
    last = None
    try:
        for candidate in registry.load("mappers", mapper).search(MapRequest(OPERATOR, SIMBA, options=options), ctx):
            last = candidate
    except BudgetExhausted:
        pass
    assert last is not None
    return ln.cost(ln.Problem(OPERATOR, SIMBA), last.mapping).edp, last.claim.lower_bound, ctx.evaluations


@pytest.mark.parametrize(("mapper", "options"), [("polish", {"kicks": 2}), ("optimal", {}), ("portfolio", {})])
def test_the_best_is_kept_and_nothing_is_evaluated_any_more(mapper: str, options: Options) -> None:
    unhurried = Asked(10**9)
    whole, bound, evaluations = search(mapper, options, unhurried)
    half = unhurried.asked // 2
    asked = Asked(half)
    edp, cut_bound, used = search(mapper, options, asked)
    assert edp >= whole * (1 - 1e-12)
    assert used < evaluations
    if bound is not None and cut_bound is not None:
        assert cut_bound <= whole * (1 + 1e-9)
    # Told once, it asks a few times more at most: at the end of the loops it is in.
    assert asked.asked - half < 12


def test_cancelled_in_the_larger_space_there_is_no_bound() -> None:
    """After the first part, before all others were opened."""
    first = Asked(10**9)
    search("optimal", {"kicks": 0}, first)
    _, bound, _ = search("optimal", {"kicks": 0, "space": "free"}, Asked(first.asked + 3))
    assert bound is None
