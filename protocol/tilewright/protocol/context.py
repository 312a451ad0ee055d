"""The context that hosts hand to plugins: a worker's child process, the conformance suites, and the CLI's own evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import registry
from .errors import InvalidInput
from .plugin import Budget, BudgetExhausted, Kind

#: The simulator that scores batches: the one cost model.
COST_MODEL = "analytical"


def _silent(message: str, figures: dict[str, float]) -> None:
    return None


class HostContext:
    """See `tilewright.protocol.plugin.Context` for what plugins may rely on.

    `kind` and `name` say which plugin asks: it may reach what it declares in ``uses``, and `granted` (``"kind:name"``).
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        budget: Budget,
        seed: int = 0,
        *,
        granted: tuple[str, ...] = (),
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[str, dict[str, float]], None] = _silent,
    ) -> None:
        import numpy as np

        self.budget = budget
        self.rng = np.random.default_rng(seed)
        #: True once the time limit ended something: the answer is not reproducible.
        self.cut = False
        self._asking = f"{kind[:-1]} {name!r}"
        self._granted = {*granted, *(f"{ref.kind}:{ref.name}" for ref in registry.uses(registry.find(kind, name)))}
        self._cancelled = cancelled
        self._progress = progress
        self._used = 0
        self._until = None if budget.seconds is None else time.monotonic() + budget.seconds
        self._scorer: Any = None

    @property
    def cancelled(self) -> bool:
        """True once the run was cancelled."""
        return self._cancelled()

    @property
    def evaluations(self) -> int:
        """Evaluations used so far."""
        return self._used

    def charge(self, evaluations: int) -> None:
        """Count evaluations; `BudgetExhausted` when they are more than is left, or when time is up."""
        if self._until is not None and time.monotonic() > self._until:
            self.cut = True
            raise BudgetExhausted(f"time limit of {self.budget.seconds} s reached after {self._used} evaluations")
        limit = self.budget.evaluations
        if limit is not None and self._used + evaluations > limit:
            raise BudgetExhausted(f"budget of {limit} evaluations used")
        self._used += evaluations

    def evaluate(self, batch: Any) -> Any:
        """Score a batch, cut to what is left of the budget; `BudgetExhausted` when nothing is left."""
        left = None if self.budget.evaluations is None else self.budget.evaluations - self._used
        if left is not None and 0 < left < len(batch):
            batch = batch[:left]
        self.charge(len(batch))
        if self._scorer is None:
            self._scorer = registry.load("simulators", COST_MODEL)
        return self._scorer.evaluate(batch)

    def progress(self, message: str, **figures: float) -> None:
        """Report progress to people."""
        self._progress(message, figures)

    def plugin(self, kind: Kind, name: str) -> Any:
        """Another plugin, if the asking one declared it."""
        if f"{kind}:{name}" not in self._granted:
            raise InvalidInput(f"{self._asking} asked for {kind}:{name}, expected one of its `uses`: {sorted(self._granted) or 'none'}")
        return registry.load(kind, name)
