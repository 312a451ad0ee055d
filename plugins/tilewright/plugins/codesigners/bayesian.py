"""Bayesian optimization in two loops: DOSA's strongest baseline as published, and a modern library's instead.

``method=two-loop`` is the published baseline (``ucb-bar/dosa``, BSD-2-Clause): for each of 100 random hardware
configurations, and each operator, a Gaussian process (radial basis, length 1, noise 1e-10, nothing fitted) on 100 random
mappings ranks 1,000 more by mean less one standard deviation; the ten first are scored. A second process on the hardware
found so far ranks all other hardware the same way; ten are tried. The original picks these ten by an arg-sort of an
arg-sort, that is by rank numbers taken for indices: ``as_published=true`` does so too. Only mappings that the
cost model scores are counted; ranking needs their factors alone.

``method=optuna`` asks Optuna (tree-structured Parzen estimators, or its Gaussian process where torch is installed) for
hardware and scores random mappings on it. Optuna fits: asked and told step by step, seeded, integer and logarithmic
parameters, kept well; it comes with the extra ``bayesian``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tilewright import loopnest as ln
from tilewright.loopnest.designing import Designing, Hardware
from tilewright.loopnest.mapspace import Mapspace, scores
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest

Floats = NDArray[np.float64]

METHODS, SAMPLERS = ("two-loop", "optuna"), ("tpe", "gp")
#: Published sizes: hardware in the first stage and in the second, mappings, ranked candidates, and scored ones of these.
HARDWARE, FINAL, MAPPINGS, RANKED, SCORED = 100, 10, 100, 1000, 10
#: Hardware ranked in the second stage, drawn from larger spaces.
RANKED_HARDWARE = 20_000
NOISE = 1e-10


class GaussianProcess:
    """Posterior under a fixed radial-basis kernel of length 1 (Rasmussen and Williams, algorithm 2.1)."""

    def __init__(self, points: Floats, values: Floats) -> None:
        """Fit to ``points[N, F]`` and ``values[N]``; both are standardized."""
        self._mean, self._scale = points.mean(axis=0), points.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._points = (points - self._mean) / self._scale
        self._offset, spread = float(values.mean()), float(values.std())
        self._spread = spread or 1.0
        self._factor = cho_factor(self._kernel(self._points, self._points) + NOISE * np.eye(len(points)), lower=True)
        self._weights: Floats = cho_solve(self._factor, (values - self._offset) / self._spread)

    @staticmethod
    def _kernel(one: Floats, other: Floats) -> Floats:
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
        return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0)))

    def low(self, points: Floats) -> Floats:
        """Mean less one standard deviation at ``points[M, F]``, [M]."""
        across = self._kernel((points - self._mean) / self._scale, self._points)
        solved: Floats = cho_solve(self._factor, across.T)
        variance = np.maximum(0.0, 1.0 - (across * solved.T).sum(axis=1))
        return np.asarray(self._offset + self._spread * (across @ self._weights - np.sqrt(variance)))


class Bayesian:
    """The co-designer plugin."""

    options: ClassVar[dict[str, str]] = {
        "method": f"{' or '.join(METHODS)} (default {METHODS[0]})",
        "as_published": "true: the second stage picks hardware by the published indexing defect (default false)",
        "hardware": f"hardware tried at random first (default {HARDWARE}), less where the budget ends before",
        "ranked": f"mappings that the inner process ranks (default {RANKED})",
        "sampler": f"Optuna's sampler, {' or '.join(SAMPLERS)} (default {SAMPLERS[0]})",
    }

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield every whole design that improves."""
        designing = Designing(request, ctx)
        method = request.options.get("method", METHODS[0])
        if method not in METHODS:
            raise InvalidInput(f"options.method: {method!r}, expected one of {', '.join(METHODS)}")
        hardware = int(request.options.get("hardware", HARDWARE))
        search = _two_loop if method == "two-loop" else _optuna
        best = math.inf
        for value, found, mappings in search(designing, hardware, ctx):
            if value < best:
                best = value
                yield designing.candidate(found, mappings)


Found = tuple[float, Hardware, tuple[Mapping, ...]]


def _two_loop(designing: Designing, count: int, ctx: Context) -> Iterator[Found]:
    # Per hardware: mappings to learn from and the best ranked; the whole budget covers both stages.
    ranked = int(designing.request.options.get("ranked", RANKED))
    share = max(2, min(MAPPINGS + SCORED, designing.share // (count + FINAL)))
    scored = max(1, share // 11)
    tried: dict[Hardware, float] = {}

    def attempt(hardware: Hardware) -> Iterator[Found]:
        found = _inner(designing, hardware, (share - scored, ranked, scored), ctx)
        tried[hardware] = math.inf if found is None else found[0]
        if found is not None:
            yield found[0], hardware, found[1]

    while len(tried) < count and not ctx.cancelled:
        hardware = designing.drawn(ctx.rng)
        if hardware in tried or not designing.affordable(hardware):
            ctx.charge(1)
            continue
        yield from attempt(hardware)
    known = {hardware: value for hardware, value in tried.items() if math.isfinite(value)}
    if len(known) < 2:
        return
    process = GaussianProcess(np.array(list(known), float), np.array(list(known.values())))
    others = list(dict.fromkeys(designing.drawn(ctx.rng) for _ in range(RANKED_HARDWARE)))
    ranking = np.argsort(process.low(np.array(others, float)), kind="stable")
    if designing.request.options.get("as_published", False):
        ranking = np.argsort(ranking, kind="stable")
    for at in ranking[:FINAL].tolist():
        if others[at] not in tried and designing.affordable(others[at]) and not ctx.cancelled:
            yield from attempt(others[at])


def _inner(designing: Designing, hardware: Hardware, sizes: tuple[int, int, int], ctx: Context) -> tuple[float, tuple[Mapping, ...]] | None:
    """The best mapping of each operator: `sizes` are those learnt from, those ranked, and those of these that are scored."""
    learnt, ranked, scored = sizes
    architecture = designing.architecture(hardware)
    energies, cycles, mappings = [], [], []
    for operator in designing.operators:
        space = Mapspace(ln.Problem(operator, architecture, designing.target.constraints()))
        points = space.sample(ctx.rng, learnt + ranked)
        if len(points) < 2:
            return None
        first = space.batch(points.take(slice(0, learnt)))
        evaluation = ctx.evaluate(first)
        values = scores(evaluation, designing.request.objective)
        rest = space.batch(points.take(slice(learnt, None)))
        batch, energy, delay = first[: len(values)], evaluation.energy_pj, evaluation.cycles.astype(float)
        if len(rest) and np.isfinite(values).sum() > 1:
            fine = np.isfinite(values)
            process = GaussianProcess(_features(batch)[fine], values[fine])
            chosen = rest[np.argsort(process.low(_features(rest)), kind="stable")[:scored]]
            more = ctx.evaluate(chosen)
            batch = ln.Batch.concatenate([batch, chosen[: len(more.valid)]])
            values = np.concatenate([values, scores(more, designing.request.objective)])
            energy, delay = np.concatenate([energy, more.energy_pj]), np.concatenate([delay, more.cycles.astype(float)])
        at = int(np.argmin(values))
        if not np.isfinite(values[at]):
            return None
        energies.append(float(energy[at]))
        cycles.append(float(delay[at]))
        mappings.append(batch.mapping(at))
    return designing.value(energies, cycles), tuple(mappings)


def _features(batch: ln.Batch) -> Floats:
    """Spatial and temporal factors and order positions of every level, as the published search describes a mapping, [B, 3 L D]."""
    positions = np.argsort(batch.order, axis=2)
    return np.concatenate([part.reshape(len(batch), -1) for part in (batch.spatial, batch.temporal, positions)], axis=1).astype(float)


def _optuna(designing: Designing, count: int, ctx: Context) -> Iterator[Found]:
    try:
        import optuna
    except ImportError as error:
        raise InvalidInput(f"options.method: optuna is not installed ({error}); install tilewright with the extra bayesian") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = str(designing.request.options.get("sampler", SAMPLERS[0]))
    if name not in SAMPLERS:
        raise InvalidInput(f"options.sampler: {name!r}, expected one of {', '.join(SAMPLERS)}")
    seed = int(ctx.rng.integers(2**31))
    sampler: Any = optuna.samplers.TPESampler(seed=seed) if name == "tpe" else optuna.samplers.GPSampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    each = max(1, designing.share // count)
    for _ in range(count):
        if ctx.cancelled:
            return
        trial = study.ask()
        wanted = [
            trial.suggest_float(p.name, math.log(v[0]), math.log(v[-1]))
            for p, v in zip(designing.parameters, designing.values, strict=True)
        ]
        hardware = designing.nearest([math.exp(value) for value in wanted])
        found = designing.sampled(hardware, each, ctx) if designing.affordable(hardware) else None
        if found is None or not math.isfinite(found[0]):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, math.log(found[0]))
        yield found[0], hardware, found[1]
