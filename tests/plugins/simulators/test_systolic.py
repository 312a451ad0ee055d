"""The systolic simulator: SCALE-Sim's published cycles, an array stepped cycle by cycle, and bad input."""

from typing import ClassVar

import numpy as np
import pytest

from tilewright.plugins.simulators.systolic import Array, array_of, product_of
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, SimRequest
from tilewright.protocol.workload import batched_matmul, conv2d, elementwise
from tilewright.testing import samples
from tilewright.testing.simulators import SimulatorConformance

BERT = [
    (48, 128, 768, 768), (144, 128, 64, 128), (144, 128, 128, 64), (12, 128, 768, 3072), (12, 128, 3072, 768),
]  # fmt: skip


class TestConformance(SimulatorConformance):
    name = "systolic"


class TestConformanceOutputStationary(SimulatorConformance):
    name = "systolic"
    options: ClassVar = {"dataflow": "os", "overlap": False}


@pytest.mark.parametrize(
    ("side", "dataflow", "cycles"), [(16, "ws", 59332248), (16, "os", 45305496), (32, "ws", 18924696), (32, "os", 11768472)]
)
def test_bert_base_as_scale_sim_counts_it(side, dataflow, cycles):
    """Measured with SCALE-Sim 3.0.0 (BERT-Base, 128 tokens)."""
    array = Array(side, side, dataflow, overlap=False)
    assert sum(count * array.cycles(m, k, n) for count, m, k, n in BERT) == cycles


def stepped(a, b, rows, columns):
    """A weight-stationary array, register by register: results, and the cycle in which the last one leaves (weights: one row per cycle)."""
    m = len(a)
    right, down = np.zeros((rows, columns)), np.zeros((rows, columns))
    out = np.zeros((m, columns))
    left = cycle = 0
    while left < m * columns:
        entering = np.array([a[cycle - row, row] if 0 <= cycle - row < m else 0 for row in range(rows)])
        right = np.hstack([entering[:, None], right[:, :-1]])
        down = np.vstack([np.zeros((1, columns)), down[:-1]]) + right * b
        for column in range(columns):
            row = cycle - (rows - 1) - column
            if 0 <= row < m:
                out[row, column] = down[-1, column]
                left += 1
        cycle += 1
    return out, rows + cycle


@pytest.mark.parametrize(("m", "rows", "columns"), [(1, 4, 4), (7, 3, 5), (20, 8, 2)])
def test_one_fold_stepped_cycle_by_cycle(m, rows, columns):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, rows)), rng.integers(-9, 9, (rows, columns))
    result, cycles = stepped(a, b, rows, columns)
    assert (result == a @ b).all()
    # SCALE-Sim counts from 0 to the last cycle
    assert Array(rows, columns, "ws", overlap=False).cycles(m, rows, columns) == cycles - 1
    assert Array(rows, columns, "ws", overlap=True).cycles(m, rows, columns) == cycles + max(0, rows - m)


def test_overlap_hides_loading_but_not_streaming():
    for dataflow, streamed in (("ws", 128), ("os", 768)):
        folds = 48 * 48 if dataflow == "ws" else 8 * 48
        slow, fast = (Array(16, 16, dataflow, overlap).cycles(128, 768, 768) for overlap in (False, True))
        assert folds * streamed < fast < slow


def test_operators_as_products():
    assert product_of(conv2d(r=3, s=3, p=10, q=12, c=4, k=6, n=2)) == (1, 240, 36, 6)
    assert product_of(batched_matmul(g=3, p=5, c=7, k=9)) == (3, 5, 7, 9)
    with pytest.raises(InvalidInput, match="softmax"):
        product_of(elementwise("softmax", {"P": 4, "C": 4}, reduced=("C",)))


def test_bandwidths_hold_it_up_unless_told_otherwise():
    architecture = samples.architecture()
    schedule = samples.schedule(samples.OPERATORS["matmul"], architecture)

    def cycles(**options):
        ctx = HostContext("simulators", "systolic", Budget())
        return registry.load("simulators", "systolic").run(SimRequest((schedule,), architecture, options), ctx).costs[0].cycles

    assert cycles() >= cycles(memory=False)


def test_options_out_of_range_are_named():
    architecture = registry.load("targets", "gemmini").architecture()
    assert array_of(architecture, {})[:2] == (16, 16)
    assert array_of(architecture, {"rows": 8, "columns": 32})[:2] == (8, 32)
    with pytest.raises(InvalidInput, match="rows, columns: 32 x 16"):
        array_of(architecture, {"rows": 32})
    with pytest.raises(InvalidInput, match="dataflow: 'is'"):
        array_of(architecture, {"dataflow": "is"})
