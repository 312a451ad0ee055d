"""``profile --measure``: the real module on this CPU, beside what described processors would need at least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.profile import Machine, Measurement

from . import console, parse, request, tables, units

if TYPE_CHECKING:
    from .options import RunOptions

#: Operators that are listed.
MOST = 20


def show(said: RunOptions, repeats: int, machines: Sequence[Machine]) -> None:
    """Measure here, on the client, and print it; `InvalidInput` for a frontend that has no module to run."""
    name = request.frontend(said)
    frontend = registry.load("frontends", name)
    if not hasattr(frontend, "measure"):
        raise InvalidInput(f"--measure: the frontend {name} has nothing that runs, expected huggingface or torch (--frontend)")
    found: Measurement = frontend.measure(request.source(said.model), parse.options(said.option, "--option"), repeats)
    if said.json:
        console.json_line({"measured": msgspec.to_builtins(found)})
    else:
        console.show(table(found, machines))


def table(found: Measurement, machines: Sequence[Machine]) -> RenderableType:
    """Where the processor time goes; the last columns say how much of a described peak an operator reaches."""
    columns = ("operator", "calls", "CPU time", "%", "op/s", *(f"of {machine.name}" for machine in machines))
    made = tables.table(*columns, title=f"Measured: {found.name} on this CPU, one thread", right=range(1, len(columns)))
    for each in found.operators[:MOST]:
        rate = each.flops / each.seconds if each.flops and each.seconds else 0.0
        shares = (units.percent(rate / machine.peak(32)) if rate else "-" for machine in machines)
        made.add_row(
            each.name,
            str(each.calls),
            units.duration(each.seconds),
            f"{100 * each.seconds / found.seconds:.1f}",
            units.si(rate, "op/s") if rate else "-",
            *shares,
        )
    spread = f"spread {units.percent(found.spread)} over {found.repeats} runs, load {found.load:.1f}"
    return Group(made, Text(f"Total   {units.duration(found.seconds)} of processor time (median; {spread})"), Text())
