"""The mapper plugin: solve the program, check its answer exactly, repair it where the program's approximations failed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, get_args

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace
from tilewright.protocol.cost import Claim
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Candidate, Context, MapRequest, Options

from .formulation import Constants, formulate
from .program import EVEN, Program, Solution, Weights
from .repair import repair
from .solvers import solver


class Cosa:
    """CoSA (Huang et al., ISCA 2021) on any architecture and einsum; deterministic, and without a commercial solver.

    Its answer is the optimum of a proxy, so it claims a ``proxy optimum``, and no more than ``best found`` once repaired.
    """

    options: ClassVar[dict[str, str]] = {
        "constants": "terms of the objective: release (the released code, the default) or paper",
        "objective": "how they combine: sum (the default), or balance (the longer of work and traffic counts)",
        "weights": "utilization,compute,traffic (default: 0.1,10,1 as released; 0.1,1,1 for balance)",
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
            balance = "-balance" if request.options.get("objective") == "balance" else ""
            name = f"cosa-{request.options.get('constants', 'release')}{balance}"
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
    objective = options.get("objective", "sum")
    if objective not in ("sum", "balance"):
        raise InvalidInput(f"options.objective: {objective!r}, expected sum or balance")
    split = options.get("split")
    formulation = formulate(problem, "paper" if constants == "paper" else "release", None if split is None else float(split))
    program = Program(formulation, _weights(options, EVEN if objective == "balance" else Weights()), balance=objective == "balance")
    return program.solve(solver(str(options.get("solver", "auto"))))


def _weights(options: Options, default: Weights) -> Weights:
    said = options.get("weights")
    if said is None:
        return default
    try:
        found = Weights(*(float(word) for word in str(said).split(",")))
    except (ValueError, TypeError):
        found = Weights(-1.0)
    if len(str(said).split(",")) != len(found) or not all(0 <= weight < math.inf for weight in found):
        raise InvalidInput(f"options.weights: {said!r}, expected three numbers of at least 0: utilization,compute,traffic, e.g. 0.1,10,1")
    return found
