"""The mapper plugin: solve the program, check its answer exactly, repair it where the program's approximations failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, get_args

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace
from tilewright.protocol.cost import Claim
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Candidate, Context, MapRequest, Options

from .formulation import Constants, formulate
from .program import Program, Solution
from .repair import repair
from .solvers import solver


class Cosa:
    """CoSA (Huang et al., ISCA 2021) on any architecture and einsum; deterministic, and without a commercial solver.

    Its answer is the optimum of a proxy, so it claims a ``proxy optimum``, and no more than ``best found`` once repaired.
    """

    options: ClassVar[dict[str, str]] = {
        "constants": "objective and constants: release (the released code, the default) or paper",
        "split": "share of a level kept by several tensors that the first gets (default: 0.25 for Inputs beside Outputs, else equal)",
        "solver": "highs, cbc, or auto (the default: highs where installed)",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield the one mapping that CoSA finds, repaired if need be; nothing when the constraints leave no mapping."""
        problem = ln.Problem(request.operator, request.architecture, request.constraints)
        solution = solve(problem, request.options)
        if solution is None:
            ctx.progress("the constraints leave a factor without a place")
            return
        batch = ln.Batch.from_mappings(problem, [solution.mapping])
        found = ctx.evaluate(batch)
        ctx.progress("program solved", objective=solution.objective, variables=solution.variables, rows=solution.rows)
        if found.valid[0]:
            name = f"cosa-{request.options.get('constants', 'release')}"
            yield Candidate(solution.mapping, Claim("proxy optimum" if solution.proven else "best found", mapspace=name))
            return
        space = Mapspace(problem)
        point = space.points(batch)
        for level, over in enumerate(np.maximum(space.overflow(point)[0], 0)):
            if over:
                ctx.progress(f"the program's mapping exceeds {problem.levels[level]} by {over} words; repairing", excess=float(over))
        repaired = repair(space, point, request.objective, ctx)
        if repaired is not None:
            yield Candidate(repaired)


def solve(problem: ln.Problem, options: Options) -> Solution | None:
    """Solve CoSA's program for a problem; None when it has no solution. Raises `InvalidInput` for a wrong option."""
    constants = options.get("constants", "release")
    if constants not in get_args(Constants):
        raise InvalidInput(f"options.constants: {constants!r}, expected one of {', '.join(get_args(Constants))}")
    split = options.get("split")
    formulation = formulate(problem, "paper" if constants == "paper" else "release", None if split is None else float(split))
    return Program(formulation).solve(solver(str(options.get("solver", "auto"))))
