"""Explanations say what is so: every formula with its terms gives its value, under every convention."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import nests
import pytest

from tilewright import loopnest as ln

#: Beginning of a formula -> what it makes of its terms.
RULES: dict[str, Callable[[list[float]], float]] = {
    "children that differ x": lambda terms: terms[0] * terms[1],
    "sum over": sum,
    "product of extents": math.prod,
    "updates - share": lambda terms: terms[0] - terms[1],
    "delivered - share": lambda terms: terms[0] - terms[1],
    "asked by": lambda terms: terms[0],
    "partial sums": lambda terms: terms[0],
    "delivered by": lambda terms: terms[0],
    "0:": lambda terms: 0,
    "MACs x": math.prod,
    "read accesses x": math.prod,
    "fill accesses x": math.prod,
    "update accesses x": math.prod,
    "the slowest resource": lambda terms: max(terms),
    "words read": lambda terms: terms[0] / terms[1],
    "words written": lambda terms: terms[0] / terms[1],
}


def _check(node: ln.Explanation) -> int:
    """Formulas that were recomputed in a tree; those that say why they do not hold as they stand are left out."""
    found = 0
    rule = next((rule for start, rule in RULES.items() if node.formula.startswith(start)), None)
    if rule is not None and not any(word in node.formula for word in ("ragged", "neighbours", "plus")):
        assert rule([term.value for term in node.terms]) == pytest.approx(node.value, rel=1e-9), str(node)
        found = 1
    elif node.formula == "ceil of the slowest port":
        assert max(math.ceil(term.value) for term in node.terms) == node.value
        found = 1
    return found + sum(_check(term) for term in node.terms)


@pytest.mark.parametrize(
    ("semantics", "conventions", "ragged"),
    [
        ("timeloop", {}, False),
        ("timeloop", {"release": "2022"}, False),
        ("timeloop", {"latency": "roofline"}, False),
        ("timeloop", {"latency": "first-load"}, False),
        ("timeloop", {"outputs": "zigzag"}, False),
        ("timeloop", {"outputs": "accelforge"}, False),
        ("timeloop", {"peer_transfers": True}, False),
        ("walk", {}, False),
        ("walk", {}, True),
    ],
)
def test_formulas_give_their_values(semantics: ln.Semantics, conventions: dict[str, object], ragged: bool) -> None:
    checked = 0
    for seed in range(6):
        rng = random.Random(seed)
        op = nests.operator(rng)
        nest = nests.mapping(rng, op, 3, ragged=ragged)
        architecture = nests.wide(3, read_bandwidth=8.0, write_bandwidth=4.0, block_words=rng.choice((1, 3)))
        problem = ln.Problem(op, architecture, semantics=semantics, conventions=ln.Conventions.parse(conventions))
        if nests.figures_of(problem, nest) is None:
            continue
        for row in ln.cost(problem, nest).traffic:
            for figure in ("reads", "fills", "updates"):
                explained = ln.explain(problem, nest, f"{row.level}.{row.tensor}.{figure}")
                assert explained.value == getattr(row, figure)
                checked += _check(explained)
        for figure in ("energy", "cycles"):
            checked += _check(ln.explain(problem, nest, figure))
    assert checked > 300
