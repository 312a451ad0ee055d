"""The hardware that DOSA's model covers: a target with Gemmini's three sizes and four levels."""

from __future__ import annotations

from typing import Any

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import DesignRequest

from .layers import KEEP

#: Side of the array, KiB of the scratchpad, KiB of the accumulator.
Sizes = tuple[int, int, int]
PARAMETERS = ("pe", "scratchpad_kib", "accumulator_kib")
AREA = "area_mm2"


class Space:
    """The design space of a request."""

    def __init__(self, request: DesignRequest, target: Any) -> None:
        """Raises `InvalidInput` for a target or a limit that the method does not know."""
        self.target = target
        self.constraints = target.constraints()
        space = {parameter.name: parameter for parameter in target.design_space().parameters}
        if sorted(space) != sorted(PARAMETERS):
            raise InvalidInput(
                f"target {request.target!r}: its parameters are {', '.join(space) or 'none'}, expected Gemmini's, {', '.join(PARAMETERS)}"
            )
        self._values = [frozenset(space[name].values) for name in PARAMETERS]
        architecture = target.architecture()
        if tuple(frozenset(level.keeps) for level in architecture.levels) != tuple(frozenset(names) for names in KEEP):
            raise InvalidInput(
                f"target {request.target!r}: DOSA models registers of weights, an accumulator of outputs, a scratchpad, and DRAM"
            )
        self.scratchpad: str = architecture.level_names[2]
        for name in request.limits:
            if name not in (*PARAMETERS, AREA):
                raise InvalidInput(f"limits: {name!r} is unknown, expected one of {', '.join((*PARAMETERS, AREA))}")
        self._limits = [request.limits.get(name, float("inf")) for name in PARAMETERS]
        self._area = request.limits.get(AREA)

    @property
    def largest_array(self) -> float:
        """The limit on the array's side; infinite when there is none."""
        return self._limits[0]

    def architecture(self, sizes: Sizes) -> Architecture:
        """The target with these sizes."""
        architecture: Architecture = self.target.architecture(**dict(zip(PARAMETERS, sizes, strict=True)))
        return architecture

    def within(self, sizes: Sizes) -> Sizes:
        """The sizes cut to the limits."""
        return tuple(int(min(size, limit)) for size, limit in zip(sizes, self._limits, strict=True))  # type: ignore[return-value]

    def holds(self, sizes: Sizes) -> bool:
        """True when the sizes are in the design space and keep the limits."""
        if any(size not in values or size > limit for size, values, limit in zip(sizes, self._values, self._limits, strict=True)):
            return False
        if self._area is None:
            return True
        prices = ln.Prices(self.architecture(sizes))
        return prices.compute_area + sum(prices.area) <= self._area
