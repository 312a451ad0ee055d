"""Fit the predictors to the random mappings and write ``weights.npz``; print how they do on the points, leaving each network out.

    python -m tilewright.plugins.simulators.learned.train [OUT]

No point is ever fitted to. Leaving a network out takes every random mapping of one of its layer shapes out as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tilewright.protocol import registry

from .features import Features, features
from .model import WEIGHTS_FILE, Floats, Predictor, fit
from .rows import POINTS, RANDOM, SIDE, Row, batches, read

PREDICTORS = ("analytical", "learned", "both")
#: Networks of the points, by their part in the name.
NETWORKS = ("bert", "resnet50")


def described(rows: Sequence[Row]) -> Features:
    """Features of all rows, in their order, on memories that hold every mapping."""
    target = registry.load("targets", "gemmini")
    largest = target.architecture(pe=SIDE, scratchpad_kib=2048, accumulator_kib=2048)
    columns: dict[str, Floats] = {}
    for members, batch in batches(rows, largest, target.constraints()):
        for name, values in features(batch).columns.items():
            columns.setdefault(name, np.empty(len(rows)))[members] = values
    return Features(columns)


def left_out(random: Sequence[Row], points: Sequence[Row]) -> dict[str, Floats]:
    """Predicted cycles of the points, each network by what was fitted without its layers."""
    about, asked = described(random), described(points)
    found = {name: np.empty(len(points)) for name in PREDICTORS}
    for network in NETWORKS:
        mine = np.array([network in row.network for row in points])
        shapes = {row.shape for row, of in zip(points, mine, strict=True) if of}
        others = np.array([row.shape not in shapes for row in random])
        predictor = fit(_only(about, others), np.array([row.cycles for row in random])[others], SIDE)
        for name in PREDICTORS:
            found[name][mine] = getattr(predictor, name)(_only(asked, mine))
    return found


def _only(table: Features, rows: NDArray[np.bool_]) -> Features:
    return Features({name: values[rows] for name, values in table.columns.items()})


def figures(predicted: Floats, measured: Floats) -> tuple[float, float]:
    """Spearman's rank correlation, and the mean absolute percentage error."""
    return float(spearmanr(predicted, measured).statistic), float(100 * np.mean(np.abs(predicted / measured - 1)))


def main(out: Path) -> None:
    """Fit, compare, write."""
    random, points = read(RANDOM), read(POINTS)
    measured = np.array([row.cycles for row in points])
    print(f"{len(random)} random mappings, {len(points)} points; each network left out:")
    for name, predicted in left_out(random, points).items():
        rank, error = figures(predicted, measured)
        print(f"  {name:10} Spearman {rank:.3f}, mean error {error:.1f} %")
    predictor: Predictor = fit(described(random), np.array([row.cycles for row in random]), SIDE)
    np.savez(out, **{name: np.asarray(values) for name, values in predictor.numbers.items()})  # type: ignore[arg-type]
    print(f"wrote {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS_FILE)
