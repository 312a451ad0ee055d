"""The optimum with its certificate, on real layers."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import Any

import pytest

from tilewright import loopnest as ln
from tilewright.plugins.validations.cosa import layer, load
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Constraints
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, Candidate, MapRequest, Options
from tilewright.protocol.workload import Operator, batched_matmul, conv2d, elementwise, matmul

RECORDS = [record for record in load(None) if record["timeloop"]["valid"]]
SIMBA = registry.load("targets", "simba")


def shipped(kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    text = gzip.decompress((resources.files("tilewright.plugins.validations.cosa") / "anchors.jsonl.gz").read_bytes()).decode()
    return {(r["network"], r["layer"]): r for r in map(json.loads, text.splitlines()) if r["kind"] == kind}


def search(
    operator: Operator,
    architecture: Architecture,
    constraints: Constraints | None = None,
    budget: Budget | None = None,
    options: Options | None = None,
) -> list[Candidate]:
    ctx = HostContext("mappers", "optimal", budget or Budget(evaluations=50_000), 0)
    request = MapRequest(operator, architecture, constraints or Constraints(), options=options or {})
    found = []
    try:
        for candidate in registry.load("mappers", "optimal").search(request, ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found


@pytest.mark.parametrize("record", RECORDS[::5], ids=lambda record: f"{record['network']}{record['layer']}")
def test_certified_within_one_percent_and_never_worse_than_what_is_recorded(record: dict[str, Any]) -> None:
    """Every fifth of the 61 shapes on Simba, windows and strides included."""
    problem = ln.Problem(layer(record), SIMBA.architecture())
    last = search(layer(record), SIMBA.architecture())[-1]
    value = ln.cost(problem, last.mapping).edp
    assert last.claim.lower_bound is not None and last.claim.gap is not None
    assert last.claim.mapspace == "simba-cosa"
    assert last.claim.gap <= 0.01
    assert value == pytest.approx(last.claim.lower_bound * (1 + last.claim.gap))
    key = record["network"], record["layer"]
    for recorded in (record["timeloop"], shipped("polish_edp")[key]["polish"]):
        # The tool that measured prints energies to five digits.
        assert value <= recorded["edp_Js_cyc"] * 1e12 * (1 + 1e-5)


def test_mappings_certified_by_another_method_are_within_our_bounds() -> None:
    """Outer approximation by mixed-integer programs found these; none is below our bound, none better than ours."""
    recorded = shipped("certified_edp_outer_approximation")
    shared = [r for r in RECORDS if (r["network"], r["layer"]) in recorded]
    assert len(shared) >= 29
    for record in shared[::4]:
        other = recorded[record["network"], record["layer"]]["timeloop"]["edp_Js_cyc"] * 1e12
        last = search(layer(record), SIMBA.architecture())[-1]
        assert last.claim.lower_bound is not None
        assert last.claim.lower_bound <= other * (1 + 1e-5)
        assert ln.cost(ln.Problem(layer(record), SIMBA.architecture()), last.mapping).edp <= other * (1 + 1e-5)


@pytest.mark.parametrize("target", ["gemmini", "tpu_like", "simba"])
@pytest.mark.parametrize(
    "operator",
    [matmul(p=128, c=768, k=768), batched_matmul(g=12, p=128, c=64, k=128), batched_matmul(g=8, h=4, p=64, c=128, k=64)],
    ids=["projection", "heads", "shared keys"],
)
def test_matrix_products_are_proven(operator: Operator, target: str) -> None:
    """Without windows only the rounding to whole blocks and cycles stays open."""
    plugin = registry.load("targets", target)
    last = search(operator, plugin.architecture(), plugin.constraints())[-1]
    assert last.claim.gap is not None
    assert last.claim.gap < 1e-4


def test_cut_by_the_budget_it_says_what_is_left_open() -> None:
    """A few of dozens of configurations are bounded when the budget ends; the start is CoSA's, not polished for so few."""
    operator = conv2d(r=3, s=3, p=48, q=12, c=16, k=32, stride=(2, 2))
    first = search(operator, SIMBA.architecture(), budget=Budget(evaluations=12))[-1]
    full = search(operator, SIMBA.architecture())[-1]
    assert first.claim.kind == full.claim.kind == "best found"
    assert first.claim.gap is not None and full.claim.gap is not None
    assert first.claim.gap > full.claim.gap


def test_stops_at_the_gap_asked_for() -> None:
    operator = conv2d(r=3, s=3, p=14, q=14, c=256, k=256, stride=(2, 2))
    loose = search(operator, SIMBA.architecture(), budget=Budget(evaluations=50_000, gap=0.5))[-1]
    tight = search(operator, SIMBA.architecture())[-1]
    assert loose.claim.gap is not None and tight.claim.gap is not None
    assert tight.claim.gap < loose.claim.gap <= 0.5


def test_without_a_bound_it_says_why() -> None:
    """A copy moves two tensors only; the result is what the local search finds."""
    said: list[str] = []
    ctx = HostContext("mappers", "optimal", Budget(evaluations=500), 0, progress=lambda message, figures: said.append(message))
    request = MapRequest(elementwise("add", {"P": 16, "K": 16}, operands=2), SIMBA.architecture())
    try:
        found = list(registry.load("mappers", "optimal").search(request, ctx))
    except BudgetExhausted:
        return
    assert "no bound: the function add is not a contraction" in said
    assert all(candidate.claim.lower_bound is None for candidate in found)
