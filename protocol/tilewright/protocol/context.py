"""The context that hosts hand to plugins: a worker's child process, the conformance suites, and the CLI's own evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import registry
from .errors import InvalidInput
from .plugin import Budget, BudgetExhausted, Kind
from .registry import PluginRef

#: The simulator that scores batches: the one cost model.
COST_MODEL = "analytical"


def _silent(message: str, figures: dict[str, float]) -> None:
    return None


class HostContext:
    """See `tilewright.protocol.plugin.Context` for what plugins may rely on.

    `kind` and `name` say which plugin asks: it may reach what it declares in ``uses``, what that uses in turn, and `granted`
    (``"kind:name"``). Plugins come from `load`; `observe` sees every evaluation; `used` of the budget were used before.
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
        load: Callable[[Kind, str], Any] = registry.load,
        observe: Callable[[Any], None] = lambda evaluation: None,
        used: int = 0,
    ) -> None:
        import numpy as np

        self._budget = budget
        self.rng = np.random.default_rng(seed)
        self._cut = False
        self._asking = f"{kind[:-1]} {name!r}"
        self._granted = set(granted) | _reachable(registry.find(kind, name))
        self._cancelled = cancelled
        self._progress = progress
        self._load = load
        self._observe = observe
        self._used = used
        self._until = None if budget.seconds is None else time.monotonic() + budget.seconds
        self._scorer: Any = None

    @property
    def budget(self) -> Budget:
        """What is left."""
        evaluations, seconds = self._budget.evaluations, self._budget.seconds
        return Budget(
            evaluations=None if evaluations is None else evaluations - self._used,
            seconds=None if self._until is None or seconds is None else max(0.0, self._until - time.monotonic()),
            gap=self._budget.gap,
        )

    @property
    def cancelled(self) -> bool:
        """True once the run was cancelled or time is up."""
        self._cut = self._cut or self._cancelled()
        return self.cut

    @property
    def cut(self) -> bool:
        """True once the run was seen to be cancelled, or time is up: what is found from then on is not reproducible."""
        return self._cut or (self._until is not None and time.monotonic() > self._until)

    @property
    def evaluations(self) -> int:
        """Evaluations used so far."""
        return self._used

    def charge(self, evaluations: int) -> None:
        """Count evaluations; `BudgetExhausted` when they are more than is left, when time is up, and once the run was cancelled."""
        if self.cancelled:
            limited = "" if self._cancelled() else f": time limit of {self._budget.seconds} s"
            raise BudgetExhausted(f"stopped after {self._used} evaluations{limited}")
        limit = self._budget.evaluations
        if limit is not None and self._used + evaluations > limit:
            raise BudgetExhausted(f"budget of {limit} evaluations used")
        self._used += evaluations

    def evaluate(self, batch: Any) -> Any:
        """Score a batch, cut to what is left of the budget; `BudgetExhausted` when nothing is left."""
        left = self.budget.evaluations
        if left is not None and 0 < left < len(batch):
            batch = batch[:left]
        self.charge(len(batch))
        if self._scorer is None:
            self._scorer = self._load("simulators", COST_MODEL)
        evaluation = self._scorer.evaluate(batch)
        self._observe(evaluation)
        return evaluation

    def progress(self, message: str, **figures: float) -> None:
        """Report progress to people. Figures may be of any real type, numpy's too."""
        self._progress(message, {name: float(value) for name, value in figures.items()})

    def plugin(self, kind: Kind, name: str) -> Any:
        """Another plugin, if the asking one declared it."""
        if f"{kind}:{name}" not in self._granted:
            raise InvalidInput(f"{self._asking} asked for {kind}:{name}, expected one of its `uses`: {sorted(self._granted) or 'none'}")
        return self._load(kind, name)


def _reachable(ref: PluginRef) -> set[str]:
    """``"kind:name"`` of everything that a plugin uses, directly or through others."""
    seen: set[PluginRef] = set()
    todo = list(registry.uses(ref))
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo.extend(registry.uses(each))
    return {f"{each.kind}:{each.name}" for each in seen}
