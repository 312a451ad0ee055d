"""Adam against the published algorithm, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tilewright.loopnest.adam import Adam  # noqa: E402


def test_first_steps_by_hand() -> None:
    """Of a constant gradient every step is the learning rate, against its sign."""
    unknown = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    adam = Adam([unknown], 0.1)
    for step in range(1, 4):
        adam.step((3.0 * unknown[0] - 5.0 * unknown[1]).sum())
        assert unknown.tolist() == pytest.approx([1 - 0.1 * step, -2 + 0.1 * step], abs=1e-7)


def test_changing_gradients_by_hand() -> None:
    """Of x^2 from 1: gradients 2, then 1.8."""
    unknown = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    adam = Adam([unknown], 0.1)
    for _ in range(2):
        adam.step(unknown**2)
    first = (0.9 * 0.2 + 0.1 * 1.8) / (1 - 0.9**2)
    second = (0.999 * 0.004 + 0.001 * 1.8**2) / (1 - 0.999**2)
    assert unknown.item() == pytest.approx(0.9 - 0.1 * first / second**0.5, rel=1e-6)
