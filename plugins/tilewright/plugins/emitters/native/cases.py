"""A kernel's self-contained C test: its tables, and the sizes that reach every edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product as combinations

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .finish import channels
from .header import arguments
from .layout import RankTable, extents, tables
from .numbers import C_TYPES
from .plan import Plan, fill

#: Reference of the steps that follow a product. GELU: its slope is at most 1.13, and its own evaluation is good to 24 roundings.
_EXACT_STEPS: Mapping[str, str] = {
    "bias": "*exact += (double)bias[channel], *magnitude += fabs((double)bias[channel]);",
    "relu": "*exact = *exact > 0 ? *exact : 0;",
    "gelu": "*magnitude = 1.13 * *magnitude + 8 * fabs(*exact);"
    " *exact /= 1 + exp(-1.5957691216057308 * (*exact + 0.044715 * *exact * *exact * *exact));",
    "requantize": "const float y = rintf((float)(int32_t)*exact * scale[channel]) + (float)ZERO_POINT;"
    " *exact = y < -128 ? -128 : y > 127 ? 127 : (double)y;",
}
#: Multiply-accumulates of an operator that its test still runs once at full size, natively and under an emulator.
_WHOLE, _WHOLE_EMULATED = 4_000_000_000, 30_000_000


def test(plan: Plan, emulated: bool) -> str:
    """The C test of a kernel; at full size only where that is quick."""
    product, operator, numbers = plan.product, plan.product.operator, plan.numbers
    cases = list(_cases(plan))
    types = {
        "INPUT": C_TYPES[numbers.word(INPUTS)],
        "WEIGHT": C_TYPES[numbers.word(WEIGHTS)],
        "RESULT": plan.c_type(OUTPUTS),
        "SUM": C_TYPES[numbers.result],
        "BETA": plan.beta,
        "MORE": arguments(plan).replace("zero_point", "ZERO_POINT"),
        "A_WORD": C_TYPES[numbers.word(product.a.tensor)],
        "B_WORD": C_TYPES[numbers.word(product.b.tensor)],
        "EXACT": int(numbers.exact),
        "ROUNDING": numbers.rounding[0],
        "TINY": numbers.rounding[1],
    }
    gemm, call = "", ""
    if plan.has_gemm:
        gemm = fill("gemm_test.c", {"NAME": plan.name, **types})
        rows, columns = plan.tile.rows, _widest(plan)
        call = f"""    for (ptrdiff_t m = 1; m <= {rows + 1} && !failed; ++m)
        for (ptrdiff_t n = 1; n <= {columns + 1} && !failed; ++n)
            for (ptrdiff_t k = 0; k <= 5 && !failed; k += 5) failed |= run_gemm(m, n, k, n % 3, (int)(m + n) % 2);
    failed = failed || run_gemm({3 * rows + 1}, {3 * columns + 3}, 67, 5, 1);"""
    return fill(
        "test.c",
        {
            "NAME": plan.name,
            "DIMS": len(operator.dims),
            "RANKS": max(len(tensor.ranks) for tensor in operator.tensors),
            "CASES": len(cases),
            "BOUNDS": ", ".join("{" + ", ".join(map(str, case)) + "}" for case in cases),
            "VARIANTS": ", ".join(_variants(plan)),
            "OWN": ", ".join(str(dim.bound) for dim in operator.dims),
            "WHOLE": int(operator.macs <= (_WHOLE_EMULATED if emulated else _WHOLE)),
            "INPUTS": _tensor_literal(tables(operator, INPUTS)),
            "WEIGHTS": _tensor_literal(tables(operator, WEIGHTS)),
            "OUTPUTS": _tensor_literal(tables(operator, OUTPUTS)),
            "FINISH": fill("finish_test.c", {"CHANNEL_DIMS": _channel_dims(plan), "STEPS": _exact_steps(plan)}),
            "PREPACKED": fill("prepacked_test.c", {"NAME": plan.name, **types}) if plan.ready else "",
            "GEMM_TEST": gemm,
            "GEMM_CALL": call,
            **types,
        },
    )


def _channel_dims(plan: Plan) -> str:
    """Positions of the dims that select an output channel; -1 when there are none."""
    names = [dim.name for dim in plan.product.operator.dims]
    return ", ".join(str(names.index(dim)) for dim in channels(plan.product)) or "-1"


def _exact_steps(plan: Plan) -> str:
    return "\n".join(f"    {_EXACT_STEPS[step]}" for step in plan.finish.steps)


def _widest(plan: Plan) -> int:
    """Columns of the widest tile; of twice the shortest vectors where their length is known at run time only."""
    return plan.tile.columns(plan.lanes) * (2 if plan.library.scalable else 1)


def _variants(plan: Plan) -> Iterator[str]:
    """Blocks to test with: the chosen ones; small ones, packed, panel by panel; small ones in place; small ones, strip by strip."""
    blocks = plan.blocks
    rows, depth, columns = plan.tile.rows + 1, 5, plan.tile.columns(plan.lanes)
    chosen = (blocks.rows, blocks.depth, blocks.columns, blocks.pack_a, blocks.pack_b, blocks.strips_first)
    for each in (chosen, (rows, depth, columns, 1, 1, 0), (rows, depth, columns, 0, 0, 0), (2 * rows, depth, 2 * columns, 0, 1, 1)):
        yield f"{{{', '.join(str(int(value)) for value in each)}}}"


def _tensor_literal(ranks: list[RankTable]) -> str:
    steps = ", ".join("{" + ", ".join(map(str, table.steps)) + "}" for table in ranks)
    offsets, beyond = ", ".join(str(t.offset) for t in ranks), ", ".join(str(t.beyond) for t in ranks)
    return f"{{{len(ranks)}, {{{steps}}}, {{{offsets}}}, {{{beyond}}}}}"


def _cases(plan: Plan) -> Iterable[tuple[int, ...]]:
    """Bounds that reach every edge kernel: all row and column remainders of the innermost row and column dims.

    Other dims take 1, 2 or 3 in turn; windows keep their size, so that padding and strides stay as they are.
    """
    product, operator = plan.product, plan.product.operator
    rows = [*range(1, plan.tile.rows + 1), 2 * plan.first_rows, 2 * plan.tile.rows + 1]
    columns = [*range(1, _widest(plan) + 1), 2 * _widest(plan) + 3]
    windows = {term.dim for t in operator.tensors for rank in t.ranks if len(rank.terms) > 1 for term in rank.terms} & set(product.depth)
    for number, (m, n) in enumerate(combinations(rows if product.rows else [1], columns if product.columns else [1])):
        bounds = []
        for position, dim in enumerate(operator.dims):
            if dim.bound == 1 or dim.name in windows:
                bounds.append(dim.bound)
            elif dim.name in product.rows[-1:]:
                bounds.append(m)
            elif dim.name in product.columns[-1:]:
                bounds.append(n)
            else:
                most = 7 if dim.name in product.depth else 2
                bounds.append(1 + (number + position) % most)
        sized = dict(zip(operator.bounds, bounds, strict=True))
        if all(extent >= 1 for t in operator.tensors for extent in extents(operator, t.name, sized)):
            yield tuple(bounds)
