"""Native kernels: C for matrix products and convolutions, generated from the target's instruction library in milliseconds.

The register tile is scheduled in named steps (`schedule`), every instruction is found by unification with its semantics
(`unify`) and proven against its C template (`prove`), cache blocks come from an analytical model (`tiles`), and every
kernel is compiled and compared with a float64 evaluation of its operator over all edges (`verify`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import platformdirs

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import InstructionLibrary, Kernel, Measurement, Verification
from tilewright.protocol.keys import content_key
from tilewright.protocol.plugin import Context, EmitRequest
from tilewright.protocol.workload import WEIGHTS

from .counts import report
from .files import files
from .finish import STEPS as FINISHES
from .finish import check_output, finish_of
from .mapped import blocks_of
from .measure import race, summarize
from .numbers import FORMATS, numbers_of
from .operands import product_of
from .plan import Plan
from .render import function
from .schedule import STEPS, Tile, check, schedule
from .source import Code, generate, tile_name
from .tiles import choose_blocks, choose_tile, edges
from .toolchain import Ready, cpu, find
from .tune import tournament
from .verify import first_verification, run_test, verify

__all__ = ["Native"]


#: Strips of a block of rows where all depth is taken at once.
ROWS_HELD = 16


class Native:
    """The native emitter."""

    targets: ClassVar[tuple[str, ...]] = ("avx2", "avx512", "neon", "rvv")
    uses: ClassVar[tuple[str, ...]] = tuple(f"targets:{target}" for target in targets)
    options: ClassVar[dict[str, str]] = {
        "dtype": f"number format: {', '.join(FORMATS)}; default f32",
        "epilogue": f"what follows the product, joined by '+', in this order: {', '.join(FINISHES)}; default none",
        "beta": "1: the product is added to the result; default 0",
        "prepack": "true: the weights can be packed once, ahead of many calls; default false",
        "depth": "most words of depth of one pass; default: what the caches suggest",
        "tiles": "mapping (default): the cache blocks of the schedule, where there is one; auto: those of the model",
        "tile": "register tile as ROWSxCOLUMNS, e.g. 8x8; default: the one with the fewest modelled cycles",
    }

    def emit(self, request: EmitRequest, ctx: Context) -> Kernel:
        """Generate the kernel of a contraction and verify it where a compiler and the CPU allow."""
        library = _library(request.target, ctx)
        plan = self.plan(request, library)
        code = generate(plan)
        return msgspec.structs.replace(self._kernel(request, plan, code), verification=verify(plan, code))

    def generate(self, request: EmitRequest, ctx: Context) -> Kernel:
        """The same kernel, not verified: for emitters that compare theirs with it."""
        plan = self.plan(request, _library(request.target, ctx))
        return self._kernel(request, plan, generate(plan))

    def check(self, target: str, ctx: Context, files: Mapping[str, str], sources: Sequence[str]) -> Verification:
        """Build the C files among `sources` into a test program and run it, with the target's first toolchain at hand.

        The program ends like a kernel's own test. WrongKernel when it does not compile or fails; a missing tool is ``not verified``.
        """
        library = _library(target, ctx)
        return first_verification(library, lambda ready: run_test(ready, library.name, dict(files), tuple(sources)))

    def _kernel(self, request: EmitRequest, plan: Plan, code: Code) -> Kernel:
        library = plan.library
        bits = request.operator.tensor(request.operator.output).bits
        notes = []
        if "dtype" not in request.options and bits != 32:
            notes.append(f"computes in f32; the operator's words have {bits} bits")
        if self.takes_mapping(request):
            blocks = plan.blocks
            notes.append(f"cache blocks of the schedule: {blocks.rows} rows x {blocks.depth} deep x {blocks.columns} columns")
        return Kernel(
            operator=request.operator,
            target=request.target,
            name=plan.name,
            source=code.source,
            header=code.header,
            test=code.test,
            verification=Verification("not verified", "not asked for"),
            steps=tuple(f"{step}: {what}" for step, what in STEPS.items()),
            tiles=tuple((tile.rows, tile.columns(plan.lanes)) for tile in edges(plan.tile, library, plan.numbers) if tile.edge == "whole"),
            notes=tuple(notes),
            files=files(plan),
        )

    def explain(self, request: EmitRequest, ctx: Context) -> tuple[tuple[str, str], ...]:
        """The schedule of the main register tile: (step, the nest after it), the C function it becomes, and its counts."""
        plan = self.plan(request, _library(request.target, ctx))
        nests = list(schedule(plan.tile, plan.library, plan.numbers))
        said = [(f"{name}: {STEPS[name]}", str(nest)) for name, nest in nests]
        return (
            *said,
            ("C", function(tile_name(plan.tile, plan), nests[-1][1], plan.library)),
            ("Counts", report(plan.tile, plan.library, plan.numbers)),
        )

    def bench(self, request: EmitRequest, ctx: Context, *, rounds: int = 15, tuned: bool = False) -> tuple[Measurement, ...]:
        """Time the kernel of one product on this machine, beside numpy's BLAS for f32; fastest first.

        `tuned` plays a tournament first (its winner is remembered per machine); the configuration is fixed before the rounds that
        are reported. NotMeasurable when no compiler or CPU for the target is at hand; InvalidInput for operators that are not one
        plain matrix product.
        """
        plan = self.plan(request, _library(request.target, ctx))
        if not plan.product.is_matrix_product or plan.product.outer:
            raise InvalidInput("operator: benchmarks take one plain matrix product")
        contenders = {"model": replace(plan, only_own_size=True)}
        if tuned:
            winner = tournament(plan, Path(platformdirs.user_cache_dir("tilewright"), "tuning.json"))
            contenders["tuned"] = replace(winner, only_own_size=True, name=f"{plan.name}_tuned")
        times = race(contenders, rounds, blas=True)
        results = [summarize(name, seconds, request.operator.flops) for name, seconds in times.items()]
        return tuple(sorted(results, key=lambda each: -each.median))

    def environment(self, ctx: Context) -> str:
        """What a verification depends on besides code: the compiler of each target, and the CPU."""
        found = [each for target in self.targets for each in find(_library(target, ctx))]
        return "; ".join([*(each.name if isinstance(each, Ready) else each.reason for each in found), cpu()])

    def takes_mapping(self, request: EmitRequest) -> bool:
        """Whether blocks come from the request's schedule."""
        wanted = request.options.get("tiles", "mapping")
        if wanted not in ("mapping", "auto"):
            raise InvalidInput(f"options.tiles: {wanted!r}, expected mapping or auto")
        return request.schedule is not None and wanted == "mapping"

    def plan(self, request: EmitRequest, library: InstructionLibrary) -> Plan:
        """Name, register tile and cache blocks for a request."""
        product = product_of(request.operator)
        numbers = numbers_of(str(request.options.get("dtype", "f32")))
        check(Tile(1, 1), library, numbers)
        lanes = library.lanes[numbers.result]
        tile = _tile(str(request.options["tile"]), lanes) if "tile" in request.options else choose_tile(product.shape, library, numbers)
        check(tile, library, numbers)
        finish = finish_of(str(request.options.get("epilogue", "")), numbers)
        beta = request.options.get("beta", 0)
        if beta not in (0, 1) or (beta and finish.narrows):
            raise InvalidInput(f"options.beta: {beta!r}, expected 0 or 1, and 0 where results are requantized")
        if finish.steps:
            check_output(product)
        prepack = bool(request.options.get("prepack", False))
        outside = [dim for dim in product.outer if dim in request.operator.tensor(WEIGHTS).dims]
        if prepack and outside:
            raise InvalidInput(f"options.prepack: {WEIGHTS} move with the outer dims {', '.join(outside)}, expected one matrix of them")
        blocks = choose_blocks(product.shape, tile, library, numbers)
        if request.schedule is not None and self.takes_mapping(request):
            blocks = blocks_of(request.schedule.mapping, product, tile, lanes, blocks)
        if "depth" in request.options:
            depth = request.options["depth"]
            if not isinstance(depth, int) or depth < 1:
                raise InvalidInput(f"options.depth: {depth!r}, expected an integer of at least 1")
            blocks = replace(blocks, depth=min(depth, product.shape[2]))
        if finish.narrows:
            blocks = replace(blocks, depth=product.shape[2], rows=min(blocks.rows, ROWS_HELD * tile.rows))
        blocks = replace(blocks, depth=-(-blocks.depth // numbers.group) * numbers.group)
        m, n, k = product.shape
        key = content_key((request.operator, request.target, request.options))[:8]
        name = f"tw_{request.target}_{m}x{n}x{k}_{key}"
        return Plan(name, product, numbers, tile, blocks, library, finish, int(beta), prepack)


def _library(target: str, ctx: Context) -> InstructionLibrary:
    """The instructions of any target that offers them."""
    offers = getattr(ctx.plugin("targets", target), "instructions", None)
    if offers is None:
        raise InvalidInput(f"target: {target!r} has no instruction library, expected one of {', '.join(Native.targets)}")
    library: InstructionLibrary = offers()
    return library


def _tile(text: str, lanes: int) -> Tile:
    rows, _, columns = text.partition("x")
    if not (rows.isdigit() and columns.isdigit()) or int(columns) % lanes:
        raise InvalidInput(f"options.tile: {text!r}, expected ROWSxCOLUMNS with columns a multiple of {lanes}")
    return Tile(int(rows), int(columns) // lanes)
