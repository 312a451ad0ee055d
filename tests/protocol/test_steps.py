"""Sums over steps against sums over every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.protocol.profile import Counted
from tilewright.protocol.steps import TOLERANCE, summed


def counted(step: int, flops: Callable[[int], float], nodes: int = 1) -> list[Counted]:
    return [Counted(f"n{i}", "k", flops(step) + i, 2.0 * step, 1.0, None, flops(step)) for i in range(nodes)]


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 9), st.integers(0, 9), st.integers(1, 300))
def test_a_jump_does_not_go_unnoticed(first: int, steps: int, slope: int, jump: int, at: int) -> None:
    def flops(step: int) -> float:
        return float(slope * step + jump * (step >= at))

    (found,) = summed(lambda step: counted(step, flops), first, first + steps)
    every = range(first, first + steps + 1)
    assert found.flops == sum(map(flops, every))
    assert found.read_bytes == sum(2.0 * step for step in every)
    assert found.write_bytes == len(every)
    assert found.external_bytes is None
    assert found.cycles is not None and math.isclose(found.cycles, sum(map(flops, every)), rel_tol=2 * TOLERANCE, abs_tol=1e-3)


def test_affine_figures_need_three_steps() -> None:
    asked = []

    def count(step: int) -> list[Counted]:
        asked.append(step)
        return counted(step, lambda each: 3.0 * each, nodes=4)

    found = summed(count, 1, 4096)
    assert sorted(asked) == [1, 2048, 4096]
    assert [item.node for item in found] == ["n0", "n1", "n2", "n3"]


def test_nodes_that_only_some_steps_have() -> None:
    found = summed(lambda step: counted(step, float, nodes=1 if step < 17 else 2), 1, 100)
    assert [item.read_bytes for item in found] == [2.0 * sum(range(1, 101)), 2.0 * sum(range(17, 101))]


def test_no_steps() -> None:
    assert summed(lambda step: counted(step, float), 5, 4) == []


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_few_steps(last: int) -> None:
    (found,) = summed(lambda step: counted(step, lambda each: float(each**3)), 1, last)
    assert found.flops == sum(step**3 for step in range(1, last + 1))
