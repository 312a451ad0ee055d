"""The mapper plugin: a polished start, bounds on everything else, and a certificate of what is left to gain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from tilewright.loopnest.mapspace import problem_of
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import BudgetExhausted, Candidate, Context, MapRequest, Options

from .ground import unsupported
from .proof import Proof
from .spaces import COSA, named, parts

#: Most array elements that plans may write, in millions.
EFFORT = 1600
#: With fewer evaluations than this to spend, the start is not polished: plans need fewer.
POLISHED = 2000


class Optimal:
    """Finds the best mapping of a named mapspace (see `spaces`) and proves a lower bound on all others.

    Where no bound can be proven (`ground.unsupported` says why), it is what ``polish`` finds. A spatial configuration bounded counts
    as one evaluation. With a `subspace` of n, every n-th configuration is bounded: the bound is that of the share, and the least
    of n such bounds, with the best of n such mappings, is what the whole mapspace gives.
    """

    uses: ClassVar[tuple[str, ...]] = ("mappers:polish", "mappers:cosa")
    options: ClassVar[dict[str, str]] = {
        "space": "mapspace searched: cosa (keep sets as given, exact factors) or free (also bypass and padded dims); default cosa",
        "gap": "stop at this relative gap to the proven bound (default: that of the budget, else 0)",
        "kicks": "kicks of the local search that makes the first mapping (default 3)",
        "shard": "i/n: only share i (from 0) of n disjoint shares of the mapspace (default 0/1)",
        "effort": f"millions of array elements that bounding may take, after which the gap stays open (default {EFFORT})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement; the last candidate carries the bound that was proven.

        Raises `InvalidInput` for an option with a value that it cannot have.
        """
        request, proof = self._prepared(request, ctx)
        reason = unsupported(proof.part)
        few = ctx.budget.evaluations is not None and ctx.budget.evaluations < POLISHED
        for candidate in ctx.plugin("mappers", "cosa" if few and not reason else "polish").search(_polish(request), ctx):
            yield from proof.consider(proof.part, [candidate.mapping])
        if reason:
            ctx.progress(f"no bound: {reason}")
            return
        try:
            yield from proof.run()
            if proof.open:
                for candidate in ctx.plugin("mappers", "polish").search(_polish(request, proof), ctx):
                    yield from proof.consider(proof.part, [candidate.mapping])
        except BudgetExhausted:
            if proof.best is not None:
                yield proof.certified()
            raise
        if proof.best is not None:
            yield proof.certified()

    @staticmethod
    def _prepared(request: MapRequest, ctx: Context) -> tuple[MapRequest, Proof]:
        """The request with its options read, and the proof of it."""
        options = request.options
        problem = problem_of(request)
        space = named(str(options.get("space", COSA)), request.architecture.name)
        if "shard" in options:
            request = msgspec.structs.replace(request, subspace=_share(str(options["shard"])))
        index, of = request.subspace
        name = f"{request.architecture.name}-{space}" + (f", share {index + 1} of {of}" if of > 1 else "")
        gap, effort = float(options.get("gap", ctx.budget.gap or 0.0)), float(options.get("effort", EFFORT)) * 1e6
        return request, Proof(request, ctx, parts(problem, space), name, gap, effort)


def _share(text: str) -> tuple[int, int]:
    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise InvalidInput(f"options.shard: {text!r}, expected i/n with i from 0 to n - 1, such as 0/4")
    return int(index), int(of)


def _polish(request: MapRequest, proof: Proof | None = None) -> MapRequest:
    """The request to polish the best mapping of a proof in its part, or what there is at the start."""
    options: Options = {"kicks": int(request.options.get("kicks", 3))}
    plain = msgspec.structs.replace(request, subspace=(0, 1), options=options)
    if proof is None or proof.best is None:
        return plain
    part = proof.part
    return msgspec.structs.replace(plain, operator=part.operator, constraints=part.constraints, start=(proof.best,))
