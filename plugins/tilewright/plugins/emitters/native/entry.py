"""A kernel's entry points: the operator at its own size, at run-time sizes, and the bare matrix product."""

from __future__ import annotations

from tilewright.protocol.workload import OUTPUTS

from .header import gemm_parameters, operands, sized_parameters
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
        f"    operate(bounds, &{name}_default, inputs, weights, outputs, 0);",
        "}",
    ]
    if plan.only_own_size:
        return "\n".join([*lines, ""])
    lines += ["", f"void {name}_sized({sized_parameters(plan)}) {{ operate(bounds, blocks, inputs, weights, outputs, 1); }}"]
    if product.is_matrix_product:
        lines += [
            "",
            f"void {name}_gemm({gemm_parameters(plan)}) {{",
            "    const view_a va = {.base = a, .lane_stride = a_row, .depth_stride = 1, .plain = 1};",
            "    const view_b vb = {.base = b, .lane_stride = 1, .depth_stride = b_row, .plain = 1};",
            f"    multiply_any(&va, &vb, m, n, k, c, c_row, accumulate, &{name}_default);",
            "}",
        ]
    return "\n".join([*lines, ""])


def _operate(plan: Plan) -> list[str]:
    """The operator at the given bounds: strides from extents, views of both operands, loops around the product."""
    product, operator = plan.product, plan.product.operator
    names = [dim.name for dim in operator.dims]
    lines = [f"INLINE void operate({sized_parameters(plan)}, int any) {{"]
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
    lines.append(f"{pad}if (any) multiply_any(&a, &b, m, n, k, {result}, c_row, 0, blocks);")
    lines.append(f"{pad}else multiply(&a, &b, m, n, k, {result}, c_row, 0, blocks);")
    lines += ["    " * level + "}" for level in range(len(product.outer), -1, -1)]
    return lines


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
