"""What a design may cost at most, by the name of a design-space parameter, ``area_mm2`` or ``cycles``."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.protocol.architecture import Architecture, DesignSpace
from tilewright.protocol.design import Design
from tilewright.protocol.errors import InvalidInput, suggest

AREA, CYCLES = "area_mm2", "cycles"


class Limits:
    """Upper limits; `InvalidInput` for one that no design has, and for an area where the hardware states none."""

    def __init__(self, limits: Mapping[str, float], space: DesignSpace, architecture: Architecture) -> None:
        self._limits = limits
        self._defaults = {parameter.name: parameter.default for parameter in space.parameters}
        known = (AREA, CYCLES, *self._defaults)
        for name in limits:
            if name not in known:
                raise InvalidInput(f"limits.{name}: the target has no such figure{suggest(name, known)}")
        if AREA in limits and not architecture.states_area:
            raise InvalidInput(f"limits.{AREA}: {architecture.name} states no area, expected a target whose components do")

    def exceeded(self, design: Design) -> str:
        """The first limit that a design does not keep, with its figure; empty when it keeps all."""
        core = design.cores[0]
        figures: dict[str, float] = {**self._defaults, **core.parameters}
        figures[CYCLES] = float(design.cycles)
        figures[AREA] = max((task.schedule.cost.area_mm2 for task in design.tasks), default=0.0)
        for name, limit in self._limits.items():
            if figures[name] > limit:
                return f"{name} is {figures[name]:g}, limit {limit:g}"
        return ""
