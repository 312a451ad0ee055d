"""The named mapspaces, each a list of *parts*: problems with fixed bounds and keep sets whose perfect-factor mapspaces make it up.

``<architecture>-cosa``
    Keep sets as given; any split of the prime factors of the bounds over temporal and spatial loops, any order at every level;
    fan-outs, capacities and constraints as the cost model checks them. One part.

``<architecture>-free``
    Also: every level but the outermost may bypass any tensor that it keeps (unless the constraints fix what it keeps), and dims whose
    bounds have a prime factor above `SMOOTH` may be padded: run as if they were longer, up to the next multiple of `MULTIPLES`, as
    long as the work grows by at most `SLACK`. Padding counts as work, in cycles, words and energy. One part per choice of keep
    sets and bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import prime_factors
from tilewright.protocol.architecture import Constraints, LevelConstraint
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Loop, Mapping
from tilewright.protocol.workload import Dim, Operator

#: Bounds without a larger prime factor than this are never padded: they split well enough.
SMOOTH = 7
#: Bounds may be padded to the next multiple of these.
MULTIPLES = (2, 4, 8)
#: Most that padding may add to the work.
SLACK = 0.125
#: Most places (level, tensor) that may be bypassed.
MOST_PLACES = 8

COSA, FREE = "cosa", "free"


def named(space: str, architecture: str) -> str:
    """``cosa`` or ``free`` for a name as an option gives it, with or without the architecture's."""
    for known in (COSA, FREE):
        if space in (known, f"{architecture}-{known}"):
            return known
    raise InvalidInput(f"options.space: {space!r}, expected {COSA} or {FREE}")


def parts(problem: ln.Problem, space: str) -> list[ln.Problem]:
    """The parts of a mapspace, the problem as given first."""
    if space == COSA:
        return [problem]
    keeps = list(_keeps(problem))
    operators = list(_padded(problem.operator)) if problem.operator.is_contraction else [problem.operator]
    rules = problem.semantics, problem.conventions
    return [ln.Problem(operator, problem.architecture, constraints, *rules) for operator in operators for constraints in keeps]


def _keeps(problem: ln.Problem) -> Iterator[Constraints]:
    """The constraints with every choice of keep sets, that without bypass first."""
    keep = ln.default_keep(problem)
    rules = [problem.constraints.level(name) for name in problem.levels]
    places = [(i, t) for i, t in zip(*keep.nonzero(), strict=True) if i < len(keep) - 1 and rules[i].keep is None]
    if len(places) > MOST_PLACES:
        raise InvalidInput(f"options.space: {FREE}: {len(places)} places may be bypassed, expected at most {MOST_PLACES}")
    for bypassed in itertools.product((False, True), repeat=len(places)):
        kept = keep.copy()
        for place, away in zip(places, bypassed, strict=True):
            kept[place] = not away
        yield Constraints(tuple(_keeping(rule, problem, row) for rule, row in zip(rules, kept.tolist(), strict=True)))


def _keeping(rule: LevelConstraint, problem: ln.Problem, kept: list[bool]) -> LevelConstraint:
    return msgspec.structs.replace(rule, keep=tuple(name for name, here in zip(problem.tensors, kept, strict=True) if here))


def _padded(operator: Operator) -> Iterator[Operator]:
    """The operator with every choice of padded bounds, as it is first."""
    choices = []
    for dim in operator.dims:
        multiples = MULTIPLES if max(prime_factors(dim.bound), default=1) > SMOOTH else (1,)
        rounded = {-(-dim.bound // multiple) * multiple for multiple in multiples}
        choices.append(sorted({dim.bound} | {bound for bound in rounded if bound <= dim.bound * (1 + SLACK)}))
    for bounds in itertools.product(*choices):
        padded = msgspec.structs.replace(
            operator, dims=tuple(Dim(dim.name, bound) for dim, bound in zip(operator.dims, bounds, strict=True))
        )
        if padded.iterations <= operator.iterations * (1 + SLACK):
            yield padded


def marked(mapping: Mapping, operator: Operator, part: Operator) -> Mapping:
    """A mapping of a part as one of the operator itself: loops over padded dims are marked ragged."""
    longer = {dim.name for dim, other in zip(operator.dims, part.dims, strict=True) if dim.bound != other.bound}
    if not longer:
        return mapping

    def loops(block: tuple[Loop, ...]) -> tuple[Loop, ...]:
        return tuple(msgspec.structs.replace(loop, ragged=True) if loop.dim in longer else loop for loop in block)

    return Mapping(
        tuple(msgspec.structs.replace(level, spatial=loops(level.spatial), temporal=loops(level.temporal)) for level in mapping.levels)
    )
