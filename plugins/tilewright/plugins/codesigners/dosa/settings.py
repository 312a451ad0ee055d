"""Options of the co-designer, with the published values as defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tilewright.protocol.cost import Objective
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options

Strategy = Literal["none", "iterative", "softmax", "gumbel"]
#: Learning rate by workload for the energy-delay product, then for all others, and for energy.
RATES = {"unet": 5e-5, "rnnt": 5e-5, "resnet50": 7.5e-5, "retinanet": 7.5e-5}
RATE, ENERGY_RATE = 1e-5, 1e-4


@dataclass(frozen=True)
class Settings:
    """How to search."""

    strategy: Strategy
    as_published: bool
    starts: int
    steps: int
    rounding: int
    rate: float

    @classmethod
    def of(cls, options: Options, objective: Objective, workloads: tuple[str, ...]) -> Settings:
        """From a request's options, objective and names of workloads; `InvalidInput` names what is wrong."""
        strategy = options.get("strategy", "iterative")
        if strategy not in get_args(Strategy):
            raise InvalidInput(f"options.strategy: {strategy!r}, expected one of {', '.join(get_args(Strategy))}")
        published = options.get("as_published", False)
        if not isinstance(published, bool):
            raise InvalidInput(f"options.as_published: {published!r}, expected true or false")
        rate = ENERGY_RATE if objective == "energy" else RATES.get(workloads[0].lower(), RATE) if len(workloads) == 1 else RATE
        return cls(
            strategy,  # type: ignore[arg-type]
            published,
            _whole(options, "starts", 7, 1),
            _whole(options, "steps", 1490, 0),
            _whole(options, "rounding", 500, 1),
            _rate(options.get("rate", rate)),
        )


def _whole(options: Options, name: str, default: int, least: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"options.{name}: {value!r}, expected a whole number of at least {least}")
    return value


def _rate(value: bool | int | float | str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InvalidInput(f"options.rate: {value!r}, expected a number above 0")
    return float(value)
