"""``profile --measure``: the real module on this CPU, and beside it what the roofline of this CPU says that it takes at least."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.profile import Machine, Measurement, Point

from . import console, parse, request, tables, units

if TYPE_CHECKING:
    from .options import RunOptions

#: Operators that are listed.
MOST = 20
#: Operators of torch that are products or convolutions, by what their names contain.
PRODUCTS = ("mm", "convolution", "attention", "linear", "dot", "matmul")


def take(said: RunOptions, repeats: int) -> tuple[Measurement, Machine]:
    """Measure here, on the client, the module and the CPU; `InvalidInput` for a frontend that has no module to run."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler, which reads it when torch is loaded, is not to talk
    name = request.frontend(said)
    frontend = registry.load("frontends", name)
    if not hasattr(frontend, "measure"):
        raise InvalidInput(f"--measure: the frontend {name} has nothing that runs, expected huggingface or torch (--frontend)")
    found: Measurement = frontend.measure(request.source(said.model), parse.options(said.option, "--option"), repeats)
    return found, registry.load("frontends", "torch").calibrate()


def show(found: Measurement, this: Machine, machines: Sequence[Machine], *, json: bool) -> None:
    """Print what was measured."""
    if json:
        console.json_line({"measured": msgspec.to_builtins(found), "machine": msgspec.to_builtins(this)})
    else:
        console.show(table(found, (*machines, this)))


def compare(sums: dict[str, tuple[float, float]], this: Machine, *, json: bool) -> None:
    """Print measured times against those at the roofline of this CPU."""
    if json:
        console.json_line({"against_roofline": {name: {"measured_s": ours, "roofline_s": least} for name, (ours, least) in sums.items()}})
    else:
        console.show(comparison(sums, this))


def against(found: Measurement, machine: str, point: Point) -> dict[str, tuple[float, float]]:
    """Seconds measured, and at the roofline, of products and convolutions, of everything else, and in total."""
    measured = math.fsum(each.seconds for each in found.operators if any(word in each.name.split()[0] for word in PRODUCTS))
    products, others = 0.0, 0.0
    for row in point.rows:
        seconds = row.count * next((each.seconds for each in row.predictions if each.machine == machine), 0.0)
        if row.function in ("contraction", "softmax"):  # a softmax is part of torch's attention
            products += seconds
        else:
            others += seconds
    return {
        "products, convolutions, attention": (measured, products),
        "everything else": (found.seconds - measured, others),
        "total": (found.seconds, products + others),
    }


def comparison(sums: dict[str, tuple[float, float]], this: Machine) -> RenderableType:
    """One line per kind; the share of the roofline that is reached (above 100 %: data that were still in a cache)."""
    made: Table = tables.table(
        "", "measured", "roofline at least", "reached", title=f"Measured against the roofline of {this.name}", right=(1, 2, 3)
    )
    for name, (ours, least) in sums.items():
        made.add_row(name, units.duration(ours), units.duration(least), units.percent(least / ours) if ours else "-")
    peak, roof = this.peaks[0].ops_per_second, this.memories[-1].bytes_per_second
    return Group(made, Text(f"{this.name}: {units.si(peak, 'op/s')}, {units.si(roof, 'B/s')}; {this.source}"), Text())


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
