"""``profile``: one run of that stage, with what else is to be said of the model."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tilewright.protocol.errors import InvalidInput

from . import options

if TYPE_CHECKING:
    from tilewright.protocol.messages import RunRequest
    from tilewright.protocol.profile import Analysis, Machine, Measurement

PANEL = "What to count"
#: Target of a profile that names none.
TARGET = "gemmini"
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?::(\d+))?")
_SIZE = re.compile(r"(\d+)\s*([KMG]i?)?B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
MOST_VALUES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """What a user can say about a profile, as typed on the command line."""

    seq: str = ""
    batch: str = ""
    ctx: str = ""
    decode: bool = False
    generate: int = 0
    convention: str = "standard"
    convention_option: Sequence[str] = ()
    machine: Sequence[str] = ()
    capacity: str = ""
    measure: int = 0
    table: bool = False
    plots: Path | None = None
    html: Path | None = None


def _declared(name: str, metavar: str, help: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=help, rich_help_panel=PANEL)


DECLARED: dict[str, tuple[Any, Any]] = {
    "seq": (str, _declared("seq", "N|N..M|N,M", "Sequence lengths; N..M doubles, N..M:S counts in steps of S.")),
    "batch": (str, _declared("batch", "N|N..M|N,M", "Batch sizes.")),
    "ctx": (str, _declared("ctx", "N|N..M|N,M", "With --decode: tokens per sequence, the new one included.")),
    "decode": (bool, typer.Option("--decode", help="One new token per sequence.", rich_help_panel=PANEL)),
    "generate": (int, typer.Option("--generate", metavar="T", min=0, help="All of a generation of T tokens.", rich_help_panel=PANEL)),
    "convention": (str, _declared("convention", "NAME", "How operations and bytes are counted.")),
    "convention_option": (list[str], _declared("convention-option", "NAME=VALUE", "Option of the convention; repeatable.")),
    "machine": (list[str], _declared("machine", "NAME|FILE", "A described processor for the roofline; repeatable.")),
    "capacity": (str, _declared("capacity", "SIZE", "On-chip memory, e.g. 256KiB, for which traffic is worked out.")),
    "measure": (int, typer.Option("--measure", metavar="N", min=0, help="Run the real module N times on this CPU.", rich_help_panel=PANEL)),
    "table": (bool, typer.Option("--table", help="Only the table of classes per setting.", rich_help_panel=options.OUTPUT)),
    "plots": (Path | None, typer.Option("--plots", metavar="FOLDER", help="Write plots there.", rich_help_panel=options.OUTPUT)),
    "html": (Path | None, typer.Option("--html", metavar="FILE", help="Write everything as one page.", rich_help_panel=options.OUTPUT)),
}


def command(help: str) -> Callable[..., None]:
    """The function for typer."""

    def run(**values: Any) -> None:
        own = {name: values.pop(name) for name in DECLARED}
        start(options.RunOptions(**values), ProfileOptions(**own))

    common = [each for each in options.parameters(("profile",)) if each.name not in DECLARED]
    said = [each.replace(default="") if each.name == "target" else each for each in common]
    mine = []
    for field in dataclasses.fields(ProfileOptions):
        hint, declared = DECLARED[field.name]
        default: Any = [] if field.default == () else field.default
        mine.append(options.parameter(field.name, hint, declared, default))
    model = next(each for each in said if each.name == "model")
    options.describe(run, [model, *mine, *(each for each in said if each is not model)], help)
    return run


def start(said: options.RunOptions, asked: ProfileOptions) -> None:
    """Run the stage and write what is to be written."""
    import msgspec

    from . import running

    said, sweep = settle(said, asked)
    analysis = _analysis(asked, sweep)
    if not said.target:
        said = dataclasses.replace(said, target=TARGET)
    if asked.generate and (asked.decode or asked.ctx):
        raise InvalidInput(f"--generate {asked.generate}: expected no --decode or --ctx with it; --seq is the length of the prompt")
    if asked.generate and asked.measure:
        raise InvalidInput(f"--measure {asked.measure}: expected no --generate with it; one pass is run, give --seq, or --decode and --ctx")
    if asked.plots or asked.html:
        if said.detach:
            raise InvalidInput("--plots and --html: expected none with --detach")
        if importlib.util.find_spec("matplotlib") is None:
            raise InvalidInput("--plots and --html need matplotlib; install tilewright with the extra plots")
    measured = None
    if asked.measure:
        from . import measuring

        measured = measuring.take(said, asked.measure)
        measuring.show(*measured, analysis.machines, json=said.json)
        analysis = msgspec.structs.replace(analysis, machines=(*analysis.machines, measured[1]))
    run = ""

    def adjust(request: RunRequest) -> RunRequest:
        from .loading import with_analysis

        return with_analysis(request, said, analysis)

    def remember(name: str) -> None:
        nonlocal run
        run = name

    try:
        running.start(said, ("profile",), adjust=adjust, named=remember)
    except typer.Exit as end:
        if end.exit_code == 0 and not said.detach and (asked.plots or asked.html or measured):
            _afterwards(run, said, asked, measured)
        raise


def _afterwards(run: str, said: options.RunOptions, asked: ProfileOptions, measured: tuple[Measurement, Machine] | None) -> None:
    """What is made of the answer: the comparison with what was measured, plots, and a page."""
    from . import drawing, measuring

    state, profile = drawing.fetch(run)
    sums = measuring.against(measured[0], measured[1].name, profile.points[0]) if measured else {}
    if measured:
        measuring.compare(sums, measured[1], json=said.json)
    if asked.plots or asked.html:
        drawing.write(state, profile, asked.plots, asked.html, sums)


def settle(said: options.RunOptions, asked: ProfileOptions) -> tuple[options.RunOptions, dict[str, tuple[int, ...]]]:
    """Values become options of the frontend; several are a sweep that starts from the first."""
    words, sweep = list(said.option), {}
    for name in ("seq", "batch", "ctx"):
        if text := getattr(asked, name):
            numbers = values(f"--{name}", text)
            words.append(f"{name}={numbers[0]}")
            if len(numbers) > 1:
                sweep[name] = numbers
    if asked.decode:
        words.append("decode=true")
    return dataclasses.replace(said, option=words), sweep


def _analysis(asked: ProfileOptions, sweep: dict[str, tuple[int, ...]]) -> Analysis:
    from tilewright.protocol.profile import Analysis

    from . import machines, parse

    return Analysis(
        convention=asked.convention,
        convention_options=parse.options(asked.convention_option, "--convention-option"),
        sweep=sweep,
        generate=asked.generate,
        machines=tuple(machines.find(word) for word in asked.machine),
        capacity_bytes=size("--capacity", asked.capacity) if asked.capacity else 0,
    )


def values(flag: str, text: str) -> tuple[int, ...]:
    """``8``, ``128..4096`` (doubling), ``128..512:128`` (in steps), and lists of them."""
    found: list[int] = []
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        if match:
            low, high, step = int(match[1]), int(match[2]), int(match[3] or 0)
            if not 1 <= low <= high or match[3] == "0" or (high - low) // max(1, step or low) > 1 << 20:
                raise InvalidInput(f"{flag} {text!r}: expected a range that goes up from at least 1")
            while low <= high and len(found) <= MOST_VALUES:
                found.append(low)
                low = low + step if step else 2 * low
        elif word.strip().isdigit() and int(word) >= 1:
            found.append(int(word))
        else:
            raise InvalidInput(f"{flag} {text!r}: {word.strip()!r} is none of N, N..M, N..M:S, expected e.g. 128 or 128..4096")
    if len(found) > MOST_VALUES or len(set(found)) != len(found):
        raise InvalidInput(f"{flag} {text!r}: expected at most {MOST_VALUES} values, each once")
    return tuple(found)


def size(flag: str, text: str) -> int:
    """Bytes, e.g. ``256KiB``."""
    match = _SIZE.fullmatch(text.strip())
    if not match or int(match[1]) < 1:
        raise InvalidInput(f"{flag} {text!r}: expected a size such as 256KiB or 2MB")
    return int(match[1]) * _UNITS[(match[2] or "").lower()]
