"""Exo kernels: the micro-kernel generation paper's procedure (arXiv 2310.17408, V1 to V6), step by step in the Exo language.

The same target record that drives the native emitter is written as Exo instructions and a register memory (`language`), Exo
schedules the register tiles (`steps`), and plain loops call them in place. Each kernel is compared with float64 and, bit for
bit, with the native emitter's kernel of the same register tile and depth. Needs exo-lang (extra ``exo``); f32 matrix products
whose columns fill whole vectors.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.plugin import Context, EmitRequest

from .language import exo, language
from .steps import STEPS, compiled, schedule

__all__ = ["Exo"]

_TEMPLATES = Path(__file__).parent / "templates"


class Exo:
    """The exo emitter."""

    #: Half a second of scheduling per tile, and an extra package: the native emitter is the default.
    only_by_name: ClassVar[bool] = True
    targets: ClassVar[tuple[str, ...]] = ("avx2", "avx512", "neon")
    uses: ClassVar[tuple[str, ...]] = ("emitters:native", *(f"targets:{target}" for target in targets))
    options: ClassVar[dict[str, str]] = {
        "tile": "register tile as ROWSxCOLUMNS, e.g. 6x16; default: the native emitter's choice",
    }

    def emit(self, request: EmitRequest, ctx: Context) -> Kernel:
        """Schedule the tiles, write loops around them, and check both against float64 and the native kernel."""
        library, native, twin = self._twin(request, ctx)
        plan = native.plan(twin, library)
        m, n, k = plan.product.shape
        lanes = library.lanes["f32"]
        words = language(library)
        rows = sorted(_pieces(m, plan.tile.rows))
        vectors = sorted(_pieces(n // lanes, plan.tile.vectors))
        if words.by_lane and any(each % lanes for each in rows):
            raise InvalidInput(f"dims.P: strips of {rows} rows, expected multiples of {lanes}: {request.target} multiplies by lanes")
        tiles = [(height, width) for height in rows for width in vectors]
        header, functions = compiled([schedule(words, height, width)[-1][1] for height, width in tiles])
        name = plan.name.replace("tw_", "tw_exo_", 1)
        reference = native.generate(twin, ctx)
        values = {
            "NAME": name,
            "NATIVE": reference.name,
            "M": m,
            "N": n,
            "K": k,
            "LANES": lanes,
            "MOST_ROWS": plan.tile.rows,
            "MOST_VECTORS": plan.tile.vectors,
            "BY_LANE": int(words.by_lane),
            "TILES": " ".join(f"if (rows == {h} && vectors == {v}) tile_{h}x{v * lanes}(0, K, a, b, c); else" for h, v in tiles),
            "FUNCTIONS": functions,
            "WINDOWS": header,
            "PREAMBLE": "\n".join([*(f"#include <{each}>" for each in library.headers), library.preamble]),
            "AVAILABLE": library.available,
        }
        files = {f"{reference.name}.c": reference.source, f"{reference.name}.h": reference.header}
        source, made_header, test = (_fill(each, values) for each in ("kernel.c", "kernel.h", "test.c"))
        main = {f"{name}.c": source, f"{name}.h": made_header, f"{name}_test.c": test}
        verification: Verification = native.check(request.target, ctx, {**main, **files}, (*main, f"{reference.name}.c"))
        return Kernel(
            operator=request.operator,
            target=request.target,
            name=name,
            source=source,
            header=made_header,
            test=test,
            verification=verification,
            steps=tuple(f"{step}: {what}" for step, what in STEPS.items()),
            tiles=tuple((height, width * lanes) for height, width in reversed(tiles)),
            files=files,
        )

    def environment(self, ctx: Context) -> str:
        """What a verification depends on besides code: Exo, and what the native emitter names."""
        try:
            version = metadata.version("exo-lang")
        except metadata.PackageNotFoundError:
            version = "absent"
        native: str = ctx.plugin("emitters", "native").environment(ctx)
        return f"exo-lang {version}; {native}"

    def explain(self, request: EmitRequest, ctx: Context) -> tuple[tuple[str, str], ...]:
        """The procedure after each step for the main register tile, and its C."""
        library, native, twin = self._twin(request, ctx)
        tile = native.plan(twin, library).tile
        after = schedule(language(library), tile.rows, tile.vectors)
        return (*((f"{step}: {STEPS[step]}", str(each)) for step, each in after), ("C", compiled([after[-1][1]])[1]))

    def _twin(self, request: EmitRequest, ctx: Context) -> tuple[Any, Any, EmitRequest]:
        """The target's instructions, the native emitter, and the request to it for the same tile in one pass of depth."""
        exo()
        if request.target not in self.targets:
            raise InvalidInput(f"target: {request.target!r}, expected one of {', '.join(self.targets)}")
        library = ctx.plugin("targets", request.target).instructions()
        native = ctx.plugin("emitters", "native")
        plan = native.plan(EmitRequest(request.operator, request.target, options=request.options), library)
        m, n, k = plan.product.shape
        lanes = library.lanes["f32"]
        if not plan.product.is_matrix_product or plan.product.outer or n % lanes:
            expected = f"expected one plain matrix product of whole vectors of {lanes} columns"
            raise InvalidInput(f"operator: a product of {m} x {n} x {k}, {expected}")
        tile = f"{plan.tile.rows}x{plan.tile.vectors * lanes}"
        return library, native, EmitRequest(request.operator, request.target, options={"tile": tile, "depth": k, "dtype": "f32"})


def _pieces(total: int, most: int) -> set[int]:
    """Sizes of `total` in as few pieces of at most `most` as possible, as equal as possible."""
    count = -(-total // most)
    return {total // count, -(-total // count)}


def _fill(template: str, values: dict[str, Any]) -> str:
    text = (_TEMPLATES / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
