"""The array namespaces that the formulas are written over: numpy (exact integers) and torch (real factors, gradients).

The formulas use operators and the few functions of `Namespace`. Under numpy, counts are int64 and every division that
the model makes is an integer division. Under torch the stated relaxation holds: factors are real numbers, a loop is
present when its factor exceeds 1, comparisons see detached values, and division is real. Where a mapping happens to
have integer factors only, the roundings of the exact model are added back as constants, so both namespaces agree there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: An array of either namespace.
Array = Any


class Namespace:
    """What the formulas need of numpy."""

    #: True when factors are real numbers.
    real = False
    #: As numpy's functions of these names.
    where: Any = staticmethod(np.where)
    maximum: Any = staticmethod(np.maximum)
    minimum: Any = staticmethod(np.minimum)

    def values(self, x: Array) -> Array:
        """`x` for comparisons: without gradient."""
        return x

    def floats(self, x: Array) -> Array:
        """`x` as float64."""
        return x.astype(np.float64)

    def full(self, value: float, like: Array) -> Array:
        """An array of the shape and type of `like`."""
        return np.full_like(like, value)

    def floor_divide(self, a: Array, b: Array) -> Array:
        """Integer division of counts."""
        return a // b

    def blocks(self, words: Array, block: int) -> Array:
        """``ceil(words / block)``."""
        return words if block == 1 else -(-words // block)

    def ceil(self, x: Array) -> Array:
        """Smallest integer not below the float `x`, as a count."""
        with np.errstate(invalid="ignore"):
            return np.ceil(x).astype(np.int64)

    def ratio(self, limit: float, demand: Array) -> Array:
        """``limit / demand``, infinite where nothing is demanded."""
        with np.errstate(divide="ignore"):
            return limit / demand

    def take_rows(self, table: Array, order: Array) -> Array:
        """``table[order[k, b], b]`` for [A, B] arrays."""
        return np.take_along_axis(table, order, axis=0)

    def places(self, order: Array) -> Array:
        """The position of each dim in [A, B] orders."""
        return np.argsort(order, axis=0)

    def table(self, values: list[int]) -> Array:
        """A small constant look-up table of counts."""
        return np.array(values, np.int64)

    def members(self, chosen: list[int], size: int) -> Array:
        """A look-up table of `size` + 1 truths, true at the chosen indices; the last one (index -1) is false."""
        table = np.zeros(size + 1, bool)
        table[chosen] = True
        return table

    def distinct_sums(self, count_a: Array, step_a: Array, count_b: Array, step_b: Array) -> Array:
        """How many values ``a x step_a + b x step_b`` takes for ``a < count_a``, ``b < count_b``.

        Two pairs give one sum when they differ by a multiple of ``(step_b, -step_a) / gcd``; count those without a smaller twin.
        """
        distinct = count_a * count_b
        both = np.flatnonzero((count_a > 1) & (count_b > 1))
        if both.size:
            step_a, step_b, count_a, count_b = step_a[both], step_b[both], count_a[both], count_b[both]
            divisor = np.gcd(step_a, step_b)
            distinct[both] -= np.maximum(count_a - step_b // divisor, 0) * np.maximum(count_b - step_a // divisor, 0)
        return distinct

    def distinct_vectors(self, counts: list[Array], steps: list[list[Array]]) -> Array:
        """How many vectors ``sum of index x step`` the indices below `counts` give; ``steps[index][rank]``. By enumeration."""
        result = np.ones_like(counts[0])
        for b in range(len(result)):
            vectors = np.zeros((1, len(steps[0])), np.int64)
            for count, step in zip(counts, steps, strict=True):
                move = np.array([np.broadcast_to(rank, result.shape)[b] for rank in step])
                vectors = np.unique((vectors[:, None] + np.arange(count[b])[:, None] * move).reshape(-1, len(move)), axis=0)
            result[b] = len(vectors)
        return result


NUMPY = Namespace()
