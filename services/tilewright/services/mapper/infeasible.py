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
        #: What is wrong with the mapping, of those evaluated alone, that lacks least.
        self._nearest: tuple[Violation, ...] = ()

    def add(self, evaluation: Any) -> None:
        """Count an evaluation; what rejects some mappings among valid ones is of no interest."""
        if evaluation.valid.any():
            return
        self._tried += len(evaluation.valid)
        violations = tuple(self._model.violations(evaluation))
        if len(evaluation.valid) == 1 and (not self._nearest or _lack(violations) < _lack(self._nearest)):
            self._nearest = violations
        for violation in violations:
            before = self._found.get(violation.constraint, violation)
            rejected = violation.rejected + (before.rejected if before is not violation else 0)
            excess = min(before.least_excess, violation.least_excess)
            self._found[violation.constraint] = Violation(violation.constraint, rejected, excess)

    def infeasible(self, operator: Operator) -> Infeasible:
        """The answer for an operator without a valid mapping."""
        violations = tuple(sorted(self._found.values(), key=lambda each: (-each.rejected, each.constraint)))
        nearest = min(violations, key=lambda each: (each.least_excess, each.constraint), default=None)
        together = self._nearest or ((nearest,) if nearest is not None else ())
        return Infeasible(operator, self._tried, violations, "; ".join(map(_change, together)))


def _lack(violations: tuple[Violation, ...]) -> tuple[int, float]:
    """How much one mapping lacks: checks that fail, then what they are exceeded by."""
    return len(violations), sum(violation.least_excess for violation in violations)


def _change(violation: Violation) -> str:
    """``capacity of Buffer (64 words): words``, least excess 16 -> ``capacity of Buffer (64 words): 16 more words``."""
    what, _, unit = violation.constraint.rpartition(": ")
    return f"{what}: {violation.least_excess:g} more {unit}"
