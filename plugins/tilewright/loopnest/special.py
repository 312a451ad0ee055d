"""Non-linear operators: a special-function unit that streams its operands from the innermost level that keeps them.

The unit takes `lanes` elements per cycle. A function that needs several passes over its operands (softmax,
normalizations) reads them once per pass; a level that holds the reduced dims whole serves the later passes itself.
"""

from __future__ import annotations

from .arrays import Array
from .nest import Nest


def repeats(nest: Nest) -> list[Array] | None:
    """How often the tiles of each level are delivered for all passes, [B] each; the innermost entry is the unit itself. None: once."""
    xp, problem = nest.xp, nest.problem
    operator = problem.operator
    if operator.passes == 1:
        return None
    one = xp.full(1, nest.steps)
    reduced = [problem.active.index(d) for d, dim in enumerate(problem.dims) if dim in operator.reduced_dims and d in problem.active]
    result = [one * operator.passes]
    for tile in nest.tile:
        whole = nest.steps > 0
        for dim in reduced:
            whole = whole & (xp.values(tile[dim]) >= int(problem.active_bounds[dim]))
        result.append(xp.where(whole, one, one * operator.passes))
    return result
