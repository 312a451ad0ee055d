"""The options of a run, each stated once; every verb takes those that its stages use."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from tilewright.protocol.subjects import Stage

#: The stages, as `tilewright.protocol.subjects.STAGES` has them (a test compares); stated here to keep ``--help`` light.
ALL: tuple[Stage, ...] = ("profile", "map", "codesign", "kernel", "simulate")

#: As `tilewright.protocol.cost.Objective` has them (a test compares).
Objective = Literal["edp", "energy", "latency", "ed2p", "e2dp", "latency-then-energy", "energy-then-latency"]

WHAT, SEARCH, OUTPUT = "What to run", "How to search", "What to show"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user can say about a run, as typed on the command line."""

    model: str
    target: str
    frontend: str = ""
    format: str = ""
    seq: int | None = None
    batch: int | None = None
    option: Sequence[str] = ()
    parameter: Sequence[str] = ()
    stages: str = ""
    objective: Objective = "edp"
    mapper: str = "portfolio"
    mapper_option: Sequence[str] = ()
    evaluations: int | None = None
    seconds: str = ""
    gap: str = ""
    codesigner: str = "pareto"
    codesigner_option: Sequence[str] = ()
    design_evaluations: int | None = None
    limit: Sequence[str] = ()
    beside: Sequence[str] = ()
    emitter: str = ""
    emitter_option: Sequence[str] = ()
    simulator: str = "analytical"
    simulator_option: Sequence[str] = ()
    seed: int = 0
    no_cache: bool = False
    json: bool = False
    detach: bool = False


def _what(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=WHAT, **more)


def _search(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=SEARCH, **more)


def _output(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=OUTPUT)


#: Field -> the stages that use it (empty: every run does), and how it is typed.
DECLARED: Mapping[str, tuple[str, Any]] = {
    "model": ("", typer.Argument(metavar="MODEL", help="Name of a model, or a workload file.", show_default=False)),
    "target": ("", _what("--target", "-t", metavar="TARGET", help="Name of a target, or an architecture file.", show_default=False)),
    "frontend": ("", _what("--frontend", metavar="NAME", help="Frontend that loads the model [default: zoo; for a file, by its suffix].")),
    "format": ("", _what("--format", metavar="NAME", help="Format of an architecture file [default: native].")),
    "seq": ("", _what("--seq", metavar="N", help="Sequence length, in tokens.")),
    "batch": ("", _what("--batch", metavar="N", help="Batch size.")),
    "option": ("", _what("--option", "-o", metavar="NAME=VALUE", help="Another option of the model; repeatable.")),
    "parameter": ("", _what("--parameter", "-p", metavar="NAME=N", help="Design-space parameter of the target; repeatable.")),
    "stages": ("all", _what("--stages", metavar="LIST", help=f"Only some of {','.join(ALL)}, and what they need.")),
    "objective": ("map", _search("--objective", help="What to minimize.")),
    "mapper": ("map", _search("--mapper", "-m", metavar="NAME", help="Mapping optimizer.")),
    "mapper_option": ("map", _search("--mapper-option", metavar="NAME=VALUE", help="Option of the mapper; repeatable.")),
    "evaluations": (
        "map",
        _search("--evals", "--evaluations", metavar="N", min=1, help="Mappings that may be scored for each operator [default: 20000]."),
    ),
    "seconds": (
        "map",
        _search("--time", "--seconds", metavar="TIME", help="Time limit for each operator, e.g. 30s; what it cuts is marked incomplete."),
    ),
    "gap": ("map", _search("--until-gap", "--gap", metavar="GAP", help="Stop when the proven gap is at most this, e.g. 1% or 0.01.")),
    "codesigner": ("codesign", _search("--codesigner", metavar="NAME", help="Hardware optimizer.")),
    "codesigner_option": ("codesign", _search("--codesigner-option", metavar="NAME=VALUE", help="Option of the codesigner; repeatable.")),
    "design_evaluations": ("codesign", _search("--design-evaluations", metavar="N", min=1, help="Mappings that the codesigner may score.")),
    "limit": ("codesign", _search("--limit", metavar="NAME=X", help="Upper limit for designs, e.g. area_mm2=4; repeatable.")),
    "beside": ("codesign", _search("--with", metavar="MODEL", help="Another model that shares the design; repeatable.")),
    "emitter": ("kernel", _search("--emitter", metavar="NAME", help="Kernel generator [default: the one that covers the target].")),
    "emitter_option": ("kernel", _search("--emitter-option", metavar="NAME=VALUE", help="Option of the emitter; repeatable.")),
    "simulator": ("simulate", _search("--simulator", metavar="NAME", help="Simulator that costs the schedules again.")),
    "simulator_option": ("simulate", _search("--simulator-option", metavar="NAME=VALUE", help="Option of the simulator; repeatable.")),
    "seed": ("", _search("--seed", metavar="N", min=0, help="Seed of every random choice.")),
    "no_cache": ("", _search("--no-cache", help="Compute everything again.")),
    "json": ("", _output("--json", help="One event per line as JSON; the last line is the summary.")),
    "detach": ("", _output("--detach", "-d", help="Print the run's id and leave.")),
}


def command(stages: Sequence[str], start: Callable[[RunOptions], None], help: str) -> Callable[..., None]:
    """A function for typer whose parameters are the options that apply to `stages`; it calls `start` with what was typed."""

    def run(**values: Any) -> None:
        start(RunOptions(**values))

    describe(run, parameters(stages), help)
    return run


def parameters(stages: Sequence[str]) -> list[inspect.Parameter]:
    """The options that apply to `stages`, as typer reads them."""
    hints = get_type_hints(RunOptions)
    relevant = {"", *stages, *(["all"] if len(stages) == len(ALL) else [])}
    found = []
    for field in dataclasses.fields(RunOptions):
        used_by, declared = DECLARED[field.name]
        if used_by in relevant:
            hint = list[str] if field.default == () else hints[field.name]
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            found.append(parameter(field.name, hint, declared, [] if default == () else default))
    return found


def parameter(name: str, hint: Any, declared: Any, default: Any) -> inspect.Parameter:
    """One parameter of a typer command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, declared])


def describe(function: Callable[..., None], parameters: Sequence[inspect.Parameter], help: str) -> None:
    """Give a function that takes ``**values`` the signature and the help that typer shows."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    function.__doc__ = help
