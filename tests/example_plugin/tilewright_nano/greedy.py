"""A greedy mapper: move one prime factor inwards at a time, as long as that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from tilewright import loopnest as ln
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: (level, kind, dim) -> factor; kind is ``temporal`` or ``spatial``.
Factors = Counter[tuple[int, str, str]]


class Greedy:
    """The mapper plugin. It starts from one big loop nest in DRAM and takes the best single move until none helps."""

    options: ClassVar[dict[str, str]] = {}

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement."""
        problem = ln.Problem(request.operator, request.architecture, request.constraints)
        outermost = len(request.architecture.levels) - 1
        here: Factors = Counter({(outermost, "temporal", dim.name): dim.bound for dim in request.operator.dims})
        best = float("inf")
        moves = [here]
        while moves and not ctx.cancelled:
            mappings = [self._mapping(request, problem, factors) for factors in moves]
            scores = ctx.evaluate(ln.Batch.from_mappings(problem, mappings))
            value = {"edp": scores.edp, "energy": scores.energy_pj, "latency": scores.cycles}[request.objective]
            # The last batch of a budget is cut to what is left.
            ranked = sorted((float(value[i]), i) for i in range(len(scores.valid)) if scores.valid[i])
            if not ranked or ranked[0][0] >= best:
                return
            best, chosen = ranked[0]
            yield Candidate(mappings[chosen])
            here = moves[chosen]
            moves = [self._moved(here, outermost, slot) for slot in self._slots(request, here, outermost)]

    @staticmethod
    def _slots(request: MapRequest, factors: Factors, outermost: int) -> list[tuple[int, str, str]]:
        """Where a factor still in DRAM may go."""
        slots = []
        for index, level in enumerate(request.architecture.levels):
            limit = request.constraints.level(level.name)
            for dim in request.operator.dims:
                if factors[outermost, "temporal", dim.name] == 1:
                    continue
                if index < outermost and (limit.temporal_dims is None or dim.name in limit.temporal_dims):
                    slots.append((index, "temporal", dim.name))
                if limit.spatial_dims is None or dim.name in limit.spatial_dims:
                    slots.append((index, "spatial", dim.name))
        return slots

    @staticmethod
    def _moved(factors: Factors, outermost: int, slot: tuple[int, str, str]) -> Factors:
        """`factors` with the smallest prime of the slot's dim moved from DRAM into the slot."""
        rest = factors[outermost, "temporal", slot[2]]
        prime = next((p for p in range(2, int(rest**0.5) + 1) if rest % p == 0), rest)
        moved = factors.copy()
        moved[outermost, "temporal", slot[2]] //= prime
        moved[slot] = max(1, moved[slot]) * prime
        return moved

    @staticmethod
    def _mapping(request: MapRequest, problem: ln.Problem, factors: Factors) -> Mapping:
        keep = ln.default_keep(problem)
        levels = []
        for index, level in enumerate(request.architecture.levels):
            blocks = {
                kind: tuple(
                    Loop(dim.name, factors[index, kind, dim.name]) for dim in request.operator.dims if factors[index, kind, dim.name] > 1
                )
                for kind in ("temporal", "spatial")
            }
            spatial = _on_mesh(blocks["spatial"], request.architecture.fanout(index)[0])
            kept = tuple(name for name, kept in zip(problem.tensors, keep[index], strict=True) if kept)
            levels.append(LevelMapping(level.name, spatial, blocks["temporal"], kept))
        return Mapping(tuple(levels))


def _on_mesh(loops: tuple[Loop, ...], width: int) -> tuple[Loop, ...]:
    """Loops along X while they fit, then along Y."""
    placed, used = [], 1
    for loop in loops:
        fits = used * loop.factor <= width
        used *= loop.factor if fits else 1
        placed.append(Loop(loop.dim, loop.factor, "X" if fits else "Y"))
    return tuple(placed)
