"""Objectives by hand, on numbers and on arrays alike."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from tilewright.protocol.cost import Objective, objective_value


@pytest.mark.parametrize(
    ("name", "value"), [("edp", 6000.0), ("energy", 20.0), ("latency", 300.0), ("ed2p", 1_800_000.0), ("e2dp", 120_000.0)]
)
def test_products(name: Objective, value: float) -> None:
    assert objective_value(name, 20.0, 300.0) == value


@pytest.mark.parametrize("name", get_args(Objective))
def test_arrays_as_numbers(name: Objective) -> None:
    energy, cycles = np.array([20.0, 7.5e9, 1.0]), np.array([300.0, 1.0, 6e8])
    found = objective_value(name, energy, cycles)
    assert found.tolist() == [objective_value(name, e, c) for e, c in zip(energy.tolist(), cycles.tolist(), strict=True)]


def test_the_second_of_two_decides_among_equals_only() -> None:
    latency = [
        objective_value("latency-then-energy", energy, cycles) for cycles in (1e3, 1e3 + 1) for energy in (1.0, 1.001e9, 1.002e9, 1e15)
    ]
    assert latency == sorted(latency)
    assert len(set(latency)) == len(latency)
    energy = [objective_value("energy-then-latency", pj, cycles) for pj in (5e8, 5e8 + 1) for cycles in (1.0, 10_000.0, 10_100.0, 1e12)]
    assert energy == sorted(energy)
    assert len(set(energy)) == len(energy)
