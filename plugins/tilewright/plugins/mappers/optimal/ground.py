"""What all problems share that differ in what levels keep at most: tiles, spatial blocks, and what surely costs energy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.cost import Objective, objective_value

from .lattice import Lattice
from .spatial import Chosen, Windows, blocks

#: Configurations looked at at once.
CHUNK = 50_000
#: More configurations than this are not bounded.
MOST = 20_000_000


def unsupported(problem: ln.Problem) -> str:
    """Why a problem cannot be bounded; empty when it can."""
    rules = problem.conventions
    if rules.release != "2025" or rules.latency == "first-load" or rules.array != "none" or rules.peer_transfers:
        return f"the conventions {', '.join(rules.names)} are not bounded"
    windows = Windows(problem)
    moved = problem.relevant.sum(axis=0)
    if not problem.operator.is_contraction:
        return f"the function {problem.operator.function} is not a contraction"
    if sum(bool(ranks) for ranks in windows.ranks) > 1 or windows.ranks[problem.output]:
        return "more than one tensor, or the result, has sliding windows"
    for d, name in enumerate(problem.dims):
        if problem.bounds[d] > 1 and moved[d] < len(problem.tensors) - 1:
            return f"the dim {name} moves fewer than {len(problem.tensors) - 1} tensors"
    configurations = np.prod([float(len(block.splits)) for block in blocks(problem, windows)])
    return f"{configurations:.2g} spatial configurations" if configurations > MOST else ""


class Ground:
    """Made of one of the problems."""

    def __init__(self, problem: ln.Problem) -> None:
        self.windows = Windows(problem)
        self.lattice = Lattice(problem)
        self.blocks = blocks(problem, self.windows)
        #: Words of each whole tensor.
        self.elements = [float(self.lattice.words(t)[self.lattice.top]) for t in range(len(problem.tensors))]
        self._choices = [len(block.splits) for block in self.blocks]
        #: Spatial configurations.
        self.count = int(np.prod([float(n) for n in self._choices]))
        self._iterations = float(problem.operator.iterations)
        self._floor = self._least_energy(problem)
        self._asked: tuple[tuple[Objective, float, tuple[int, int]], list[Chosen]] | None = None

    def _least_energy(self, problem: ln.Problem) -> float:
        """pJ of the compute, and of moving every tensor without windows or gaps once to or from the outermost level."""
        prices, block = problem.prices, problem.architecture.levels[-1].block_words
        energy = problem.operator.macs * prices.compute
        for t, words in enumerate(self.elements):
            if problem.shapes[t].compact:
                energy += words / block * (prices.update[-1] if t == problem.output else prices.read[-1])
        return energy

    def configurations(self, objective: Objective, below: float, share: tuple[int, int] = (0, 1)) -> list[Chosen]:
        """Those that are possible and may be better than `below` by their compute cycles alone, some at a time.

        ``share = (i, n)``: only those whose number leaves i when divided by n. The last answer is remembered.
        """
        question = (objective, below, share)
        if self._asked is None or self._asked[0] != question:
            self._asked = question, list(self._configurations(objective, below, share))
        return self._asked[1]

    def _configurations(self, objective: Objective, below: float, share: tuple[int, int]) -> Iterator[Chosen]:
        for first in range(0, self.count, CHUNK):
            numbers = np.arange(first, min(self.count, first + CHUNK))
            numbers = numbers[numbers % share[1] == share[0]]
            chosen: NDArray[np.int64] = np.array(np.unravel_index(numbers, self._choices))
            products = np.ones((len(numbers), len(self.blocks[0].whole)))
            for block, index in zip(self.blocks, chosen, strict=True):
                products = products * block.vectors[index]
            # Blocks that unroll more of a class than there is cannot go together.
            possible = (self.blocks[0].whole % products == 0).all(axis=1)
            chosen, units = chosen[:, possible], products[possible].prod(axis=1)
            near = objective_value(objective, np.full(len(units), self._floor), self._iterations / units) < below
            yield chosen[:, near]
