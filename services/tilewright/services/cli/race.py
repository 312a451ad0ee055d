"""``map --race``: mappers side by side on the same operators, by one evaluator, at equal evaluations and at equal CPU seconds.

What a search has at a moment is the best mapping that it has *scored* by then, in the order of scoring, by the one cost model;
other work that a mapper charges to its budget (bounds, gradient steps) counts as evaluations too. Seconds are CPU seconds of
this process, the time of keeping the record and of imports taken out. Figures are relative to the best mapping that any of the
racers found for the layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Objective, objective_value
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Budget, BudgetExhausted, Evaluation, MapRequest

from . import console, parse

if TYPE_CHECKING:
    from .mapping import Layer, Machine, MapOptions
    from .options import RunOptions

#: Where racers are compared.
EVALUATIONS = (100, 1_000, 10_000)
SECONDS = (1.0, 10.0)


class Step(NamedTuple):
    """From here on a search has a mapping of this value."""

    evaluations: int
    seconds: float
    value: float


class Search(NamedTuple):
    """One search by one mapper."""

    mapper: str
    layer: str
    seed: int
    steps: tuple[Step, ...]
    #: What it took until it ended or was stopped.
    evaluations: int
    seconds: float

    def after(self, *, evaluations: float = math.inf, seconds: float = math.inf) -> float:
        """The best value by then; infinite while there is none."""
        return min((step.value for step in self.steps if step.evaluations <= evaluations and step.seconds <= seconds), default=math.inf)


class Limits(NamedTuple):
    """A search goes on until both are reached: so every checkpoint sees all that a mapper can do until then."""

    evaluations: int
    seconds: float

    @property
    def checkpoints(self) -> list[tuple[str, dict[str, float]]]:
        """What the columns of the table are called, and the arguments of `Search.after` for each."""
        counts = sorted({*(each for each in EVALUATIONS if each <= self.evaluations), self.evaluations})
        times = sorted({*(each for each in SECONDS if each <= self.seconds), self.seconds})
        found: list[tuple[str, dict[str, float]]] = [(f"{each:,} evals", {"evaluations": each}) for each in counts]
        return [*found, *((f"{each:g} s", {"seconds": each}) for each in times)]


class Recorder:
    """Hears every evaluation of one search and keeps where the best value improved."""

    def __init__(self, objective: Objective, limits: Limits) -> None:
        self._objective, self._limits = objective, limits
        self.steps: list[Step] = []
        self._own = 0.0
        self._began = time.process_time()
        self._best = math.inf
        #: Evaluations charged so far; said by the context of the search.
        self.used: Callable[[], int] = lambda: 0

    @property
    def seconds(self) -> float:
        """CPU seconds of the search so far."""
        return time.process_time() - self._began - self._own

    @property
    def over(self) -> bool:
        """True once both limits are reached."""
        return self.seconds > self._limits.seconds and self.used() >= self._limits.evaluations

    def __call__(self, evaluation: Any) -> None:
        """Keep the improvements within a batch, each at its own place in it."""
        import numpy as np

        now = self.seconds
        own = time.process_time()
        values = np.full(len(evaluation.valid), np.inf)
        values[evaluation.valid] = valid_values(evaluation, self._objective)
        first = self.used() - len(values) + 1
        lowest = np.minimum.accumulate(np.minimum(values, self._best))
        for at in np.flatnonzero(np.diff(lowest, prepend=self._best) < 0 if math.isfinite(self._best) else _drops(lowest)).tolist():
            self.steps.append(Step(first + at, now, float(lowest[at])))
        if len(lowest):
            self._best = float(lowest[-1])
        self._own += time.process_time() - own


def valid_values(evaluation: Evaluation, objective: Objective) -> Any:
    """The objective of the valid mappings of an evaluation, an array of float64."""
    cycles = evaluation.cycles[evaluation.valid].astype(float)
    return objective_value(objective, evaluation.energy_pj[evaluation.valid], cycles)


def _drops(lowest: Any) -> Any:
    """Where a falling sequence that starts from infinity falls."""
    import numpy as np

    before = np.concatenate([[np.inf], lowest[:-1]])
    return lowest < before


def search(mapper: str, layer: Layer, machine: Machine, said: RunOptions, seed: int, limits: Limits) -> Search:
    """Let one mapper search, until it ends or `limits` are reached."""
    recorder = Recorder(said.objective, limits)
    ctx = HostContext("mappers", mapper, Budget(), seed, cancelled=lambda: recorder.over, observe=recorder)
    recorder.used = lambda: ctx.evaluations
    request = MapRequest(layer.operator, machine.architecture, machine.constraints, said.objective)
    try:
        for _ in registry.load("mappers", mapper).search(request, ctx):
            if recorder.over:
                break
    except BudgetExhausted:
        pass
    return Search(mapper, layer.name, seed, tuple(recorder.steps), ctx.evaluations, recorder.seconds)


def show(said: RunOptions, asked: MapOptions, layers: Sequence[Layer], machine: Machine) -> None:
    """Race, print the table (``--json``: every search, then the table), draw the plot."""
    from . import race_tables

    mappers = racers(asked.race)
    if asked.plot is not None:
        race_tables.check(asked.plot)
    limits = Limits(said.evaluations or EVALUATIONS[-1], parse.seconds("--time", said.seconds) or SECONDS[-1])
    for mapper in mappers:  # so that nobody pays for imports
        search(mapper, layers[0], machine, said, said.seed, Limits(1, 0.0))
    found = []
    for layer in layers:
        for mapper in mappers:
            for seed in range(said.seed, said.seed + asked.seeds):
                found.append(search(mapper, layer, machine, said, seed, limits))
                if said.json:
                    console.json_line(found[-1]._asdict())
        if not said.json:
            console.note(f"{layer.name}: raced")
    race = race_tables.Race(tuple(found), limits)
    if said.json:
        console.json_line({"race": race.as_json(mappers)})
    else:
        console.show(race.table(mappers, f"{said.model} on {said.target}, {said.objective}"))
    if asked.plot is not None:
        race.draw(mappers, asked.plot, f"{said.model} on {said.target}")


def racers(text: str) -> list[str]:
    """Names of installed mappers from a list with commas."""
    names = [word.strip() for word in text.split(",") if word.strip()]
    known = [ref.name for ref in registry.plugins("mappers")]
    for name in names:
        if name not in known:
            raise InvalidInput(f"--race: mapper {name!r} is not installed{suggest(name, known)}")
    if not names or len(set(names)) != len(names):
        raise InvalidInput(f"--race {text!r}: expected mappers, each once, e.g. cosa,random")
    return names
