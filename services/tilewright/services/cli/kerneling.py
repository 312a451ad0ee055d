"""``kernel``: a run of that stage on a model, or one matrix product: its code, its schedule, how fast it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tilewright.protocol.errors import InvalidInput

from . import options, parse

if TYPE_CHECKING:
    from rich.table import Table

    from tilewright.protocol.kernel import Kernel, Measurement
    from tilewright.protocol.workload import Operator

#: MODEL that means one matrix product of the given size.
PRODUCT = "gemm"
PANEL = f"Instead of a model: {PRODUCT}"


@dataclasses.dataclass(frozen=True)
class Product:
    """One matrix product, and what to show of it."""

    m: int | None
    n: int | None
    k: int | None
    transpose: str
    bench: bool
    tune: bool
    rounds: int
    explain_schedule: bool
    out: Path | None


def command(help: str) -> Callable[..., None]:
    """The verb as typer reads it: the options of a run, and those of one product."""

    def option(name: str, hint: Any, default: Any, help: str, **more: Any) -> Any:
        return options.parameter(name, hint, typer.Option(f"--{name.replace('_', '-')}", help=help, rich_help_panel=PANEL, **more), default)

    own = [
        option("m", int | None, None, "Rows of A and C.", metavar="N", min=1),
        option("n", int | None, None, "Columns of B and C.", metavar="N", min=1),
        option("k", int | None, None, "Columns of A, rows of B.", metavar="N", min=1),
        option("transpose", str, "", "Operands that lie in memory column by column: a, b or ab.", metavar="LIST"),
        option("bench", bool, False, "Time it here beside numpy's BLAS: one program, interleaved rounds, CPU time."),
        option("tune", bool, False, "Play a tournament of tiles and blocks first (with --bench); its winner is remembered."),
        option("rounds", int, 21, "Rounds of --bench.", metavar="N", min=1, max=64),
        option("explain_schedule", bool, False, "Print the code after every step of the schedule."),
        option(
            "out", Path | None, None, "Write source, header, test, benchmark, CMake project and Python binding there.", metavar="FOLDER"
        ),
    ]
    names = [field.name for field in dataclasses.fields(Product)]

    def run(**values: Any) -> None:
        product = Product(**{name: values.pop(name) for name in names})
        start(options.RunOptions(**values), product)

    options.describe(run, [*options.parameters(("map", "kernel")), *own], help)
    return run


def start(said: options.RunOptions, product: Product) -> None:
    """One product where the model is called so, else the run."""
    if said.model == PRODUCT:
        generate(said, product)
        return
    for field in dataclasses.fields(Product):
        value = getattr(product, field.name)
        if value and field.name != "rounds":
            raise InvalidInput(f"--{field.name.replace('_', '-')} {value}: expected the model to be {PRODUCT}, not {said.model!r}")
    from .running import start

    start(said, ("kernel",))


def generate(said: options.RunOptions, product: Product) -> None:
    """Generate, verify, and show what was asked for; without a wish, what came of it."""
    from tilewright.protocol import registry
    from tilewright.protocol.context import HostContext
    from tilewright.protocol.plugin import Budget, EmitRequest
    from tilewright.services.runtime.host import check_options

    from . import console

    settings = parse.options(said.emitter_option, "--emitter-option")
    name = said.emitter or "native"
    emitter = registry.load("emitters", name)
    check_options("emitters", name, emitter.options, settings)
    if said.target not in emitter.targets:
        raise InvalidInput(f"--target {said.target!r}: emitter {name!r} has kernels for {', '.join(emitter.targets)}")
    request = EmitRequest(_operator(product, str(settings.get("dtype", "f32"))), said.target, options=settings)
    ctx = HostContext("emitters", name, Budget(), said.seed, granted=(f"targets:{said.target}",))
    for flag, wanted, method in (("--explain-schedule", product.explain_schedule, "explain"), ("--bench", product.bench, "bench")):
        if wanted and not hasattr(emitter, method):
            raise InvalidInput(f"{flag}: emitter {name!r} does not offer it, expected native")
    if product.tune and not product.bench:
        raise InvalidInput("--tune: expected --bench beside it")
    if product.explain_schedule:
        for step, code in emitter.explain(request, ctx):
            console.line(f"== {step}\n{code}\n")
    if product.bench:
        found = emitter.bench(request, ctx, rounds=product.rounds, tuned=product.tune)
        if said.json:
            console.json_line(found)
        else:
            console.show(_speeds(found, product))
    if product.out is not None or not (product.explain_schedule or product.bench):
        kernel = emitter.emit(request, ctx)
        if product.out is not None:
            write(kernel, product.out, "--out")
        _tell(kernel, said)


def write(kernel: Kernel, folder: Path, flag: str) -> None:
    """All files of a kernel; `InvalidInput` naming `flag` where they cannot be written."""
    main = {f"{kernel.name}.c": kernel.source, f"{kernel.name}.h": kernel.header, f"{kernel.name}_test.c": kernel.test}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {**main, **kernel.files}.items():
            (folder / parse.file_name(name)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{flag} {folder}: {error.strerror}") from error


def _operator(product: Product, dtype: str) -> Operator:
    """The product as an operator; transposed operands have their indices exchanged."""
    import re

    import msgspec

    from tilewright.protocol.workload import INPUTS, WEIGHTS, matmul

    sizes = {"m": product.m, "n": product.n, "k": product.k}
    for name, size in sizes.items():
        if size is None:
            raise InvalidInput(f"--{name}: missing, expected --m, --n and --k for {PRODUCT}")
    if set(product.transpose) - set("ab"):
        raise InvalidInput(f"--transpose {product.transpose!r}: expected a, b or ab")
    digits = re.search(r"\d+", dtype)
    operator = matmul(p=product.m or 1, c=product.k or 1, k=product.n or 1, bits=int(digits[0]) if digits else 32)
    turned = [tensor for letter, tensor in (("a", INPUTS), ("b", WEIGHTS)) if letter in product.transpose]
    tensors = tuple(
        msgspec.structs.replace(each, ranks=tuple(reversed(each.ranks))) if each.name in turned else each for each in operator.tensors
    )
    return msgspec.structs.replace(operator, tensors=tensors)


def _speeds(found: tuple[Measurement, ...], product: Product) -> Table:
    """Median and interval of every contender, and the ratio of its median to that of the one that is not ours."""
    from . import tables

    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    title = f"{product.m} x {product.n} x {product.k}: one core, CPU time, {product.rounds} interleaved rounds, {load}"
    made = tables.table("kernel", "G operations/s", "95 % interval of the median", "ratio to BLAS", title=title, right=range(1, 4))
    blas = next((each.median for each in found if "BLAS" in each.name), None)
    for each in found:
        ratio = "-" if blas is None else f"{each.median / blas:.3f}"
        made.add_row(each.name, f"{each.median:.1f}", f"{each.low:.1f} to {each.high:.1f}", ratio)
    return made


def _tell(kernel: Kernel, said: options.RunOptions) -> None:
    """One line on what was generated and verified."""
    from . import console

    if said.json:
        console.json_line(
            {
                "name": kernel.name,
                "target": kernel.target,
                "tiles": kernel.tiles,
                "notes": kernel.notes,
                "verification": kernel.verification,
            }
        )
        return
    checked = kernel.verification
    how = (
        f"verified by {checked.compiler}: {checked.cases} cases, largest error {checked.worst_error:.3g} of what rounding allows"
        if checked.status == "verified"
        else f"not verified: {checked.reason}"
    )
    console.line(f"{kernel.name} for {kernel.target}, register tile {'x'.join(map(str, kernel.tiles[0]))}, {how}")
    for note in kernel.notes:
        console.line(f"note: {note}")
