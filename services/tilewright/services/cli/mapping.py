"""``map``: one run of that stage; or, here on the client, a race of mappers or a look at the mapspace."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tilewright.protocol.errors import InvalidInput, suggest

from . import options

if TYPE_CHECKING:
    from tilewright.protocol.architecture import Architecture, Constraints
    from tilewright.protocol.workload import Operator

PANEL = "Instead of mapping"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What a user can ask of a model's mapspaces besides a mapping."""

    race: str = ""
    mapspace: int = 0
    calibrate: bool = False
    layer: Sequence[str] = ()
    seeds: int = 5
    plot: Path | None = None


def _declared(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PANEL, **more)


DECLARED: dict[str, tuple[Any, Any]] = {
    "race": (str, _declared("--race", metavar="LIST", help="Race these mappers: best so far by evaluations and CPU seconds.")),
    "mapspace": (int, _declared("--mapspace", metavar="N", min=0, help="Draw N valid mappings per operator and show how they spread.")),
    "calibrate": (bool, _declared("--calibrate", help="Fit the weights of CoSA's objective to the target.")),
    "layer": (list[str], _declared("--layer", metavar="NAME", help="Only layers of this name, or with this in it; repeatable.")),
    "seeds": (int, _declared("--seeds", metavar="N", min=1, help="Searches per mapper and layer of a race.")),
    "plot": (Path | None, _declared("--plot", metavar="FILE", help="Draw it there: .svg, .pdf or .png (needs the extra plots).")),
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A distinct operator of a model under the name that tables show."""

    name: str
    operator: Operator
    count: int


@dataclasses.dataclass(frozen=True)
class Machine:
    """What layers are mapped on."""

    architecture: Architecture
    constraints: Constraints


def command(help: str) -> Callable[..., None]:
    """The function for typer."""

    def run(**values: Any) -> None:
        own = {name: values.pop(name) for name in DECLARED}
        start(options.RunOptions(**values), MapOptions(**own))

    mine = []
    for field in dataclasses.fields(MapOptions):
        hint, declared = DECLARED[field.name]
        default: Any = [] if field.default == () else field.default
        mine.append(options.parameter(field.name, hint, declared, default))
    options.describe(run, [*options.parameters(("map",)), *mine], help)
    return run


def start(said: options.RunOptions, asked: MapOptions) -> None:
    """Run the stage, or do here what was asked for instead."""
    if bool(asked.race) + bool(asked.mapspace) + asked.calibrate > 1:
        raise InvalidInput("--race, --mapspace and --calibrate: expected one of them")
    if asked.race or asked.mapspace or asked.calibrate:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy is imported: CPU seconds of one thread are compared
        layers, machine = load(said, asked.layer)
        if asked.race:
            from . import race

            race.show(said, asked, layers, machine)
        elif asked.calibrate:
            from . import calibrate

            calibrate.show(said, layers, machine)
        else:
            from . import mapspace

            mapspace.show(said, asked, layers, machine)
        return
    for flag, value in (("--layer", " ".join(asked.layer)), ("--plot", asked.plot)):
        if value:
            raise InvalidInput(f"{flag} {value}: expected --race, --mapspace or --calibrate beside it")
    from . import running

    running.start(said, ("map",))


def load(said: options.RunOptions, words: Sequence[str]) -> tuple[list[Layer], Machine]:
    """The distinct contractions of a model, those that `words` name or are part of, and the machine; all read here, on the client."""
    from tilewright.protocol import registry
    from tilewright.protocol.architecture import Constraints

    from . import request
    from .report import shape

    asked = request.build(said, ("map",), local=True)
    workload = asked.workload
    if workload is None:
        workload = registry.load("frontends", asked.frontend).load(asked.model, asked.frontend_options)
    if asked.architecture is not None:
        machine = Machine(asked.architecture, Constraints())
    else:
        target = registry.load("targets", asked.target)
        machine = Machine(target.architecture(**asked.target_parameters), target.constraints())
    tasks = [task for task in workload.tasks if task.operator.is_contraction]
    names = [task.name for task in tasks]
    layers = []
    for task in tasks:
        name = task.name if names.count(task.name) == 1 else f"{task.name} {shape(task.operator)}"
        layers.append(Layer(name, task.operator, task.count))
    chosen: list[Layer] = []
    for word in words:
        matches = [layer for layer in layers if layer.name == word] or [layer for layer in layers if word in layer.name]
        if not matches:
            raise InvalidInput(f"--layer {word!r} does not exist{suggest(word, [layer.name for layer in layers])}")
        chosen += [layer for layer in matches if layer not in chosen]
    return chosen or layers, machine
