"""A kernel's entry points: the operator at its own size, at run-time sizes, and the bare matrix product."""

from __future__ import annotations

import math

from tilewright.protocol.workload import OUTPUTS, WEIGHTS, Operator

from .finish import outer_channels
from .header import arguments, gemm_parameters, operands, sized_parameters
from .layout import POINTERS, stride, tables
from .operands import Operand, Product
from .plan import Plan


def entry_points(plan: Plan) -> str:
    """The functions that the header declares."""
    name, blocks, product = plan.name, plan.blocks, plan.product
    bounds = ", ".join(str(dim.bound) for dim in product.operator.dims)
    chosen = (blocks.rows, blocks.depth, blocks.columns, blocks.pack_a, blocks.pack_b, blocks.strips_first)
    lines = [
        f"const {name}_blocks {name}_default = {{{', '.join(str(int(value)) for value in chosen)}}};",
        "",
        "#ifndef TW_AVAILABLE",
        f"#define TW_AVAILABLE ({plan.library.available})",
        "#endif",
        f"int {name}_available(void) {{ return TW_AVAILABLE != 0; }}",
        "",
        *_operate(plan),
        "",
        "/* Sizes are constants here: the compiler folds every loop bound. */",
        f"void {name}({operands(plan)}) {{",
        f"    static const ptrdiff_t bounds[] = {{{bounds}}};",
        *_promises(plan),
        f"    operate(bounds, &{name}_default, inputs, weights, outputs{arguments(plan)}, 0, 0);",
        "}",
        *_prepacked(plan, bounds),
    ]
    if plan.only_own_size:
        return "\n".join([*lines, ""])
    lines += [
        "",
        f"void {name}_sized({sized_parameters(plan)}) {{",
        f"    operate(bounds, blocks, inputs, weights, outputs{arguments(plan)}, 0, 1);",
        "}",
    ]
    if plan.has_gemm:
        lines += [
            "",
            f"void {name}_gemm({gemm_parameters(plan)}) {{",
            "    const view_a va = {.base = a, .lane_stride = a_row, .depth_stride = 1, .plain = 1};",
            "    const view_b vb = {.base = b, .lane_stride = 1, .depth_stride = b_row, .plain = 1};",
            f"    multiply_any(&va, &vb, m, n, k, c, c_row, accumulate, &{name}_default, &(const extras){{0}});",
            "}",
        ]
    return "\n".join([*lines, ""])


def _operate(plan: Plan) -> list[str]:
    """The operator at the given bounds: strides from extents, views of both operands, loops around the product."""
    product, operator = plan.product, plan.product.operator
    names = [dim.name for dim in operator.dims]
    lines = [f"INLINE void operate({sized_parameters(plan)}, item *ready, int any) {{"]
    lines += _strides(operator)
    lines += _view("a", product.a, plan) + _view("b", product.b, plan)
    for side, dims in (("m", product.rows), ("n", product.columns), ("k", product.depth)):
        lines.append(f"    const ptrdiff_t {side} = {' * '.join(f'bounds[{names.index(dim)}]' for dim in dims) or '1'};")
    lines.append(f"    const ptrdiff_t c_row = {stride(operator, OUTPUTS, product.rows[-1]) if product.rows else 'n'};")
    for depth, dim in enumerate(product.outer, start=1):
        lines.append("    " * depth + f"for (ptrdiff_t o{depth} = 0; o{depth} < bounds[{names.index(dim)}]; ++o{depth}) {{")
    pad = "    " * (len(product.outer) + 1)
    for view, operand in (("a", product.a), ("b", product.b)):
        lines.append(f"{pad}{view}.base = {POINTERS[operand.tensor]}{_offset(product, operand.tensor)};")
    result = f"outputs{_offset(product, OUTPUTS)}"
    lines.append(f"{pad}const extras more = {{{_extras(plan)}}};")
    lines.append(f"{pad}if (any) multiply_any(&a, &b, m, n, k, {result}, c_row, {plan.beta}, blocks, &more);")
    lines.append(f"{pad}else multiply(&a, &b, m, n, k, {result}, c_row, {plan.beta}, blocks, &more);")
    lines += ["    " * level + "}" for level in range(len(product.outer), -1, -1)]
    return lines


def _strides(operator: Operator) -> list[str]:
    """Extents and strides of every tensor, from the bounds."""
    lines = []
    for tensor in operator.tensors:
        short = POINTERS[tensor.name]
        ranks = tables(operator, tensor.name)
        for number, table in enumerate(ranks):
            reach = "".join(f" + {factor} * (bounds[{d}] - 1)" for d, factor in enumerate(table.steps) if factor)
            lines.append(f"    const ptrdiff_t {short}_extent_{number} = {1 + table.beyond}{reach};")
        for number in range(len(ranks) - 1, -1, -1):
            inner = "1" if number == len(ranks) - 1 else f"{short}_stride_{number + 1} * {short}_extent_{number + 1}"
            lines.append(f"    const ptrdiff_t {short}_stride_{number} = {inner};")
        lines.append(f"    (void){short}_extent_0, (void){short}_stride_0;")
    return lines


def _extras(plan: Plan) -> str:
    """Initializers of the struct `extras`; channels move with the outer loops that select weights."""
    moves = outer_channels(plan.product)
    offset = "".join(f" + o{n} * {moves[dim]}" for n, dim in enumerate(plan.product.outer, start=1) if dim in moves)
    fields = [".ready = ready"]
    if "bias" in plan.finish.steps:
        fields.append(f".bias = bias{offset}")
    if plan.finish.narrows:
        fields += [f".scale = scale{offset}", ".zero_point = zero_point"]
    return ", ".join(fields)


def _promises(plan: Plan) -> list[str]:
    """What the caller promised, checked unless NDEBUG is defined: words are aligned, the result overlaps no operand."""
    operator = plan.product.operator
    size = {tensor.name: math.prod(operator.shape(tensor.name)) for tensor in operator.tensors}
    lines = [f"    assert(aligned({POINTERS[name]}, sizeof *{POINTERS[name]}));" for name in size]
    lines += [
        f"    assert(apart(outputs, {size[OUTPUTS]} * sizeof *outputs, {POINTERS[name]}, {size[name]} * sizeof *{POINTERS[name]}));"
        for name in size
        if name != OUTPUTS
    ]
    return lines


def _prepacked(plan: Plan, bounds: str) -> list[str]:
    """Entry points for weights that are packed once."""
    if not plan.ready:
        return []
    name, (m, n, k) = plan.name, plan.product.shape
    groups = f"({-(-k // plan.numbers.group)} * GROUP)"
    lanes = f"{m}" if plan.ready == "a" else f"(({n} + LANES - 1) / LANES * LANES)"
    side = plan.operand(plan.ready)
    view = "\n".join(_strides(plan.product.operator) + _view(plan.ready, side, plan))
    return [
        "",
        f"size_t {name}_packed_bytes(void) {{ return (size_t)({lanes} * {groups}) * sizeof(item); }}",
        "",
        f"void {name}_pack(const {plan.c_type(WEIGHTS)} *weights, void *packed) {{",
        f"    static const ptrdiff_t bounds[] = {{{bounds}}};",
        view,
        f"    {plan.ready}.base = weights;",
        f"    pack_all(&{plan.ready}, {m}, {n}, {k}, &{name}_default, packed);",
        "}",
        "",
        f"void {name}_prepacked({operands(plan, 'const void *packed')}) {{",
        f"    static const ptrdiff_t bounds[] = {{{bounds}}};",
        f"    operate(bounds, &{name}_default, inputs, 0, outputs{arguments(plan)}, (item *)packed, 0);",
        "}",
    ]


def _offset(product: Product, tensor: str) -> str:
    moved = product.operator.tensor(tensor).dims
    return "".join(f" + o{n} * ({stride(product.operator, tensor, dim)})" for n, dim in enumerate(product.outer, start=1) if dim in moved)


def _view(name: str, operand: Operand, plan: Plan) -> list[str]:
    operator = plan.product.operator
    ranks = tables(operator, operand.tensor)
    short = POINTERS[operand.tensor]
    names = [dim.name for dim in operator.dims]
    lines = [f"    view_{name} {name} = {{.plain = {int(operand.plain)}, .ranks = {len(ranks)}}};"]
    sides = (("lane", operand.lanes), ("depth", operand.depth))
    if operand.plain:
        for side, dims in sides:
            lines.append(f"    {name}.{side}_stride = {stride(operator, operand.tensor, dims[-1]) if dims else '1'};")
        return lines
    for rank, table in enumerate(ranks):
        for field, value in (("extent", f"{short}_extent_{rank}"), ("stride", f"{short}_stride_{rank}"), ("offset", table.offset)):
            lines.append(f"    {name}.{field}[{rank}] = {value};")
    for side, dims in sides:
        lines.append(f"    {name}.{side}_dims = {len(dims)};")
        for number, dim in enumerate(dims):
            at = names.index(dim)
            lines.append(f"    {name}.{side}_bound[{number}] = bounds[{at}];")
            lines += [f"    {name}.{side}_step[{number}][{rank}] = {t.steps[at]};" for rank, t in enumerate(ranks) if t.steps[at]]
    return lines
