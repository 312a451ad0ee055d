"""``map --calibrate``: the three weights of CoSA's objective, fitted to a target by the one cost model.

The publication finds its weights by micro-benchmarks of the target; here every second layer of the model is one. Only ratios of
weights matter, so that of work stays and the others move: by factors of three, one after the other, as long as the geometric mean
of the layers' values falls. The other half of the layers is kept out of the fit and tells what the weights are worth.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tilewright.protocol import registry
from tilewright.protocol.context import COST_MODEL, HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, MapRequest, Options

from . import console, parse, tables

if TYPE_CHECKING:
    from .mapping import Layer, Machine
    from .options import RunOptions

MAPPER = "cosa"
#: What the released code uses: utilization, work, traffic.
RELEASED = (0.1, 10.0, 1.0)
#: A fit ends after so many steps in one direction.
STEP, MOST = 3.0, 4


class Fit(NamedTuple):
    """Weights, and the geometric mean of the layers' values over those with the released weights."""

    weights: tuple[float, float, float]
    fitted: float
    #: The same for layers that the fit has not seen; None where there are none.
    unseen: float | None
    #: Programs solved.
    solved: int

    @property
    def option(self) -> str:
        """The mapper's option."""
        return "weights=" + ",".join(f"{weight:g}" for weight in self.weights)


class Calibration:
    """Values of layers by weights, each solved once."""

    def __init__(self, said: RunOptions, machine: Machine) -> None:
        self._machine, self._objective, self._seed = machine, said.objective, said.seed
        self._options: Options = parse.options(said.mapper_option, "--mapper-option")
        self._known: dict[tuple[str, tuple[float, ...]], float] = {}

    def value(self, layer: Layer, weights: tuple[float, ...]) -> float:
        """The objective of CoSA's mapping of a layer."""
        key = layer.name, weights
        if key not in self._known:
            machine = self._machine
            options: Options = {**self._options, "weights": ",".join(map(str, weights))}
            request = MapRequest(layer.operator, machine.architecture, machine.constraints, self._objective, options=options)
            found = list(registry.load("mappers", MAPPER).search(request, HostContext("mappers", MAPPER, Budget(), self._seed)))
            if not found:
                raise InvalidInput(f"--calibrate: {MAPPER} finds no mapping of {layer.name}; leave it out with --layer")
            model = registry.load("simulators", COST_MODEL)
            cost = model.cost(layer.operator, machine.architecture, found[-1].mapping, machine.constraints)
            self._known[key] = cost.objective(self._objective)
        return self._known[key]

    def ratio(self, layers: Sequence[Layer], weights: tuple[float, ...]) -> float:
        """Geometric mean of the values over those with the released weights."""
        return statistics.geometric_mean(self.value(layer, weights) / self.value(layer, RELEASED) for layer in layers)

    def fit(self, layers: Sequence[Layer]) -> Fit:
        """Move one weight at a time while the layers at even places gain; the others judge."""
        seen, unseen = layers[::2], layers[1::2]
        best, weights = 1.0, RELEASED
        for at, factor in itertools.product((2, 0), (STEP, 1 / STEP)):
            for _ in range(MOST):
                tried = tuple(weight * factor if index == at else weight for index, weight in enumerate(weights))
                found = self.ratio(seen, tried)
                if found >= best:
                    break
                best, weights = found, (tried[0], tried[1], tried[2])
        return Fit(weights, best, self.ratio(unseen, weights) if unseen else None, len(self._known))


def show(said: RunOptions, layers: Sequence[Layer], machine: Machine) -> None:
    """Fit, and say what it gains."""
    if any(word.startswith("weights") for word in said.mapper_option):
        raise InvalidInput("--calibrate: expected no --mapper-option weights=... beside it")
    fit = Calibration(said, machine).fit(layers)
    if said.json:
        console.json_line({**fit._asdict(), "option": fit.option})
        return
    made = tables.table(
        "weights", "layers of the fit", "other layers", right=(1, 2), title=f"{said.model} on {said.target}: {said.objective}"
    )
    made.add_row("released: utilization 0.1, work 10, traffic 1", "1.000x", "1.000x")
    fitted = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(("utilization", "work", "traffic"), fit.weights, strict=True))
    made.add_row(f"fitted: {fitted}", f"{fit.fitted:.3f}x", "-" if fit.unseen is None else f"{fit.unseen:.3f}x")
    console.show(made)
    console.line(f"{fit.solved} programs solved. To use them: --mapper {MAPPER} --mapper-option {fit.option}")
