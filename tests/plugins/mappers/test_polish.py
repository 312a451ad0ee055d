"""Local search: never worse than its start, and at least as good as a recorded one."""

from __future__ import annotations

import gzip
import json
import math
from importlib import resources

from tilewright import loopnest as ln
from tilewright.plugins.validations.cosa import layer, load
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Budget, BudgetExhausted, Candidate, MapRequest
from tilewright.protocol.workload import Operator, conv2d

SIMBA = registry.load("targets", "simba")


def search(operator: Operator, evaluations: int, start: tuple[Mapping, ...] = (), mapper: str = "polish") -> list[Candidate]:
    ctx = HostContext("mappers", mapper, Budget(evaluations=evaluations), 0)
    found = []
    try:
        for candidate in registry.load("mappers", mapper).search(MapRequest(operator, SIMBA.architecture(), start=start), ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found


def test_starts_from_what_it_is_given_and_improves() -> None:
    operator = conv2d(r=3, s=3, p=14, q=14, c=64, k=64)
    problem = ln.Problem(operator, SIMBA.architecture())
    start = search(operator, 200, mapper="random")[-1].mapping
    values = [ln.cost(problem, candidate.mapping).edp for candidate in search(operator, 3000, (start,))]
    assert values[0] == ln.cost(problem, start).edp
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_an_invalid_start_is_replaced() -> None:
    """A mapping of another operator has factors that do not multiply to the bounds here."""
    other = search(conv2d(r=3, s=3, p=28, q=28, c=64, k=64), 200, mapper="random")[-1].mapping
    assert search(conv2d(r=3, s=3, p=14, q=14, c=64, k=64), 600, (other,))


def test_as_good_as_the_recorded_local_search() -> None:
    """On every sixth shape, by geometric mean; the records took 0.4 CPU seconds per layer each."""
    text = gzip.decompress((resources.files("tilewright.plugins.validations.cosa") / "anchors.jsonl.gz").read_bytes()).decode()
    polished = {(r["network"], r["layer"]): r["polish"] for r in map(json.loads, text.splitlines()) if r["kind"] == "polish_edp"}
    logs = []
    for record in [r for r in load(None) if r["timeloop"]["valid"]][::6]:
        operator = layer(record)
        found = ln.cost(ln.Problem(operator, SIMBA.architecture()), search(operator, 10000)[-1].mapping).edp / 1e12
        logs.append(math.log(found / polished[record["network"], record["layer"]]["edp_Js_cyc"]))
    assert math.fsum(logs) <= 0.01 * len(logs)
