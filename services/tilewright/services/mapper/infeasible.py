"""Why nothing fits: which constraint rejected how much, and what the smallest change would be."""

from __future__ import annotations

from typing import Any

from tilewright.protocol.cost import Infeasible, Violation
from tilewright.protocol.workload import Operator


class Tally:
    """Violations over all evaluations of a search."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tried = 0
        self._found: dict[str, Violation] = {}

    def add(self, evaluation: Any) -> None:
        """Count an evaluation; what rejects some mappings among valid ones is of no interest."""
        if evaluation.valid.any():
            return
        self._tried += len(evaluation.valid)
        for violation in self._model.violations(evaluation):
            before = self._found.get(violation.constraint, violation)
            rejected = violation.rejected + (before.rejected if before is not violation else 0)
            excess = min(before.least_excess, violation.least_excess)
            self._found[violation.constraint] = Violation(violation.constraint, rejected, excess)

    def infeasible(self, operator: Operator) -> Infeasible:
        """The answer for an operator without a valid mapping."""
        violations = tuple(sorted(self._found.values(), key=lambda each: (-each.rejected, each.constraint)))
        nearest = min(violations, key=lambda each: (each.least_excess, each.constraint), default=None)
        return Infeasible(operator, self._tried, violations, _change(nearest) if nearest is not None else "")


def _change(violation: Violation) -> str:
    """``capacity of Buffer (64 words): words``, least excess 16 -> ``capacity of Buffer (64 words): 16 more words``."""
    what, _, unit = violation.constraint.rpartition(": ")
    return f"{what}: {violation.least_excess:g} more {unit}"
