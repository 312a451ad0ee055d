"""Gemmini kernels: the instruction stream of a tiled operator, and C that issues it.

Tiles come from the schedule's mapping (cut to half of each memory, because the other half holds the next tile), or, without a
schedule or with ``tiles=auto``, from Gemmini's own library. The stream is what the ``gemmini`` simulator times; before it is
handed out, its functional model runs it, or that of a smaller operator of the same tiles, against numpy.
"""

from __future__ import annotations

import math
from typing import ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.keys import content_key
from tilewright.protocol.plugin import Context, EmitRequest

from .prove import prove
from .source import render

__all__ = ["Gemmini"]

#: Loops of a program that is stored, at most.
TILES = 1 << 14


class Gemmini:
    """The ``gemmini`` emitter: int8 in and out, scale 1, saturated."""

    targets: ClassVar[tuple[str, ...]] = ("gemmini",)
    uses: ClassVar[tuple[str, ...]] = ("simulators:gemmini", "targets:gemmini")
    options: ClassVar[dict[str, str]] = {"tiles": "mapping (default): the schedule's tiles; auto: those of Gemmini's own library"}

    def emit(self, request: EmitRequest, ctx: Context) -> Kernel:
        """Generate the kernel of a contraction; `InvalidInput` naming the operator when Gemmini cannot run it."""
        if request.target not in self.targets:
            raise InvalidInput(f"target: {request.target!r}, expected one of {', '.join(self.targets)}")
        wanted = str(request.options.get("tiles", "mapping"))
        if wanted not in ("mapping", "auto"):
            raise InvalidInput(f"options.tiles: {wanted!r}, expected mapping or auto")
        simulator, architecture = ctx.plugin("simulators", "gemmini"), ctx.plugin("targets", "gemmini").architecture()
        own = request.schedule is None or wanted == "auto"
        mapping = None if request.schedule is None or own else request.schedule.mapping
        job = simulator.job(request.operator, architecture, mapping)
        notes = []
        if not own and (count := simulator.tiles(job, architecture)) > TILES:
            notes.append(f"the schedule's tiles are too small, {count} loops: tiles of Gemmini's own library instead")
            own, job = True, simulator.job(request.operator, architecture, None)
        stored = simulator.tiles(job, architecture) <= TILES
        if not stored:
            notes.append("the program is too long to be stored: its C issues it")
        name = f"tw_gemmini_{content_key((request.operator, mapping, request.options))[:12]}"
        why = "tiles of Gemmini's own library" if own else "tiles of the schedule"
        dim = math.isqrt(architecture.compute.instances)
        code = render(name, job, dim, why)
        if request.schedule is not None and request.schedule.architecture != content_key(architecture):
            notes.append("the schedule is for other sizes of the target: its tiles are cut to the default ones")
        bits = {tensor.bits for tensor in request.operator.tensors}
        if bits != {8}:
            notes.append(f"computes on int8; the operator's words have {', '.join(map(str, sorted(bits)))} bits")
        return Kernel(
            operator=request.operator,
            target=request.target,
            name=name,
            source=code["source"],
            header=code["header"],
            test=code["test"],
            verification=Verification("verified", prove(simulator, job, architecture, dim), cases=1),
            steps=(
                f"tile: {', '.join(f'{axis} {size}' for axis, size in job.tiles._asdict().items())} ({why})",
                f"repeat: {job.repeat} times",
            ),
            program=simulator.program(job, architecture) if stored else None,
            notes=tuple(notes),
        )
