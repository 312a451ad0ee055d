"""The ``learned`` simulator: cycles of Gemmini as measured with FireSim, predicted from a mapping. See README.md."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.cost import LatencyRow
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.plugin import Context, SimRequest, SimResult

from .features import features
from .model import Predictor

PREDICTORS = ("both", "analytical", "learned")
VERSION = 1


class Learned:
    """The simulator plugin. Energy and traffic are the cost model's; only the cycles are predicted."""

    options: ClassVar[dict[str, str]] = {
        "predictor": "both (roofline and learning), analytical (roofline alone) or learned (without it); default both"
    }

    def __init__(self) -> None:
        self._predictor: Predictor | None = None

    def run(self, request: SimRequest, ctx: Context) -> SimResult:
        """Cost every schedule; `InvalidInput` for another architecture than a Gemmini, or a mapping that is invalid on it."""
        name = str(request.options.get("predictor", PREDICTORS[0]))
        if name not in PREDICTORS:
            raise InvalidInput(f"options.predictor: {name!r}, expected one of {', '.join(PREDICTORS)}")
        model = f"learned-{name}/{VERSION}"
        costs = []
        for index, schedule in enumerate(request.schedules):
            problem = ln.Problem(schedule.operator, request.architecture)
            try:
                exact = ln.cost(problem, schedule.mapping)
            except InvalidMapping as error:
                raise InvalidMapping(f"schedule {index}: {error}") from None
            cycles = math.ceil(self.cycles(ln.Batch.from_mappings(problem, [schedule.mapping]), name)[0])
            costs.append(
                msgspec.structs.replace(
                    exact,
                    model=model,
                    cycles=cycles,
                    latency=(*exact.latency, LatencyRow("measured", cycles)),
                    utilization=schedule.operator.macs / (request.architecture.peak_macs_per_cycle * cycles),
                )
            )
        attribution = tuple({row.resource: row.cycles / cost.cycles for row in cost.latency} for cost in costs)
        return SimResult(tuple(costs), model, attribution)

    def cycles(self, batch: Any, predictor: str = PREDICTORS[0]) -> NDArray[np.float64]:
        """Predicted cycles of valid mappings, float64[B], for searches; never fewer than the array needs."""
        if self._predictor is None:
            self._predictor = Predictor.load()
        found = features(batch)
        predicted: NDArray[np.float64] = getattr(self._predictor, predictor)(found)
        least = np.ceil(batch.problem.operator.macs / batch.problem.architecture.peak_macs_per_cycle)
        return np.asarray(np.maximum(predicted, least))
