"""DOSA's latency network, trained on demand: ``python -m tilewright.plugins.simulators.learned.dosa_network [EPOCHS] [learned|both]``.

As published (``ucb-bar/dosa``, BSD-2-Clause): inputs are every factor and order position that varies, and the layer, each divided
by its largest value; hidden layers of 256, 512, 2048, 2048, 512, 256 and 64 with GELU and dropout of 0.3; a softplus (beta 5) on
top, added to the analytical cycles by the combined predictor; mean absolute error of cycles over the largest; Adam at 1e-5,
all rows at once. Published are 50,000 epochs, which is beyond what a CPU does in minutes; say how many you ran.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .model import Floats
from .rows import POINTS, RANDOM, Row, read
from .train import NETWORKS, described, figures

HIDDEN = (256, 512, 2048, 2048, 512, 256, 64)
RATE, DROPOUT, BETA = 1e-5, 0.3, 5.0
EPOCHS = 300
DIMS = "RSPQCKN"


def inputs(rows: Sequence[Row]) -> Floats:
    """Factors, order positions (7 where a level lacks the dim) and layer of every row, ``[B, 93]``."""
    table = []
    for row in rows:
        values: list[float] = []
        for level in row.mapping.levels:
            spatial, temporal = ({loop.dim: loop.factor for loop in block} for block in (level.spatial, level.temporal))
            order = {loop.dim: at + 1 for at, loop in enumerate(level.temporal)}
            values += [source.get(dim, default) for source, default in ((spatial, 1), (temporal, 1), (order, 7)) for dim in DIMS]
        table.append([*values, *row.shape])
    return np.array(table, float)


def network(width: int) -> torch.nn.Module:
    """An untrained network for inputs of `width`."""
    layers: list[torch.nn.Module] = []
    for inside, outside in zip((width, *HIDDEN[:-1]), HIDDEN, strict=True):
        layers += [torch.nn.Linear(inside, outside), torch.nn.GELU(), torch.nn.Dropout(DROPOUT)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], 1), torch.nn.Softplus(beta=BETA))


def trained(known: Floats, cycles: Floats, base: Floats, asked: Floats, epochs: int, seed: int = 0) -> Floats:
    """What a network fitted to ``cycles - base`` of the known rows adds for the rows that are asked, in cycles."""
    torch.manual_seed(seed)
    varies = known.std(axis=0) > 0
    largest, most = known[:, varies].max(axis=0), float(cycles.max())
    model = network(int(varies.sum()))
    points, target, floor = (torch.tensor(each, dtype=torch.float32) for each in (known[:, varies] / largest, cycles / most, base / most))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(epochs):
        loss = (model(points)[:, 0] + floor - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        added = model(torch.tensor(asked[:, varies] / largest, dtype=torch.float32))[:, 0]
    return np.asarray(added.numpy().astype(float) * most)


def left_out(random: Sequence[Row], points: Sequence[Row], epochs: int, *, combined: bool) -> Floats:
    """Predicted cycles of the points, each network by what was trained without its layers."""
    known, asked = inputs(random), inputs(points)
    cycles = np.array([row.cycles for row in random])
    base, floor = (described(rows).columns["roofline"] * combined for rows in (random, points))
    found = np.empty(len(points))
    for name in NETWORKS:
        mine: NDArray[np.bool_] = np.array([name in row.network for row in points])
        shapes = {row.shape for row, of in zip(points, mine, strict=True) if of}
        others = np.array([row.shape not in shapes for row in random])
        found[mine] = floor[mine] + trained(known[others], cycles[others], base[others], asked[mine], epochs)
    return found


def main(epochs: int, kinds: Sequence[str]) -> None:
    """Train and compare."""
    random, points = read(RANDOM), read(POINTS)
    measured = np.array([row.cycles for row in points])
    for kind in kinds:
        began = time.process_time()
        rank, error = figures(left_out(random, points, epochs, combined=kind == "both"), measured)
        print(f"{kind:8} {epochs} epochs, {time.process_time() - began:.0f} CPU-s: Spearman {rank:.3f}, mean error {error:.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS, sys.argv[2:] or ["learned", "both"])
