"""A kernel's entry points: the operator at its own size, at run-time sizes, and the bare matrix product; and its header."""

from __future__ import annotations

from tilewright.protocol.workload import OUTPUTS

from .layout import POINTERS, stride, tables
from .operands import Operand, Product
from .plan import Plan


def entry_points(plan: Plan) -> str:
    """The functions that the header declares."""
    blocks, product = plan.blocks, plan.product
    bounds = ", ".join(str(dim.bound) for dim in product.operator.dims)
    lines = [
        f"const {plan.name}_blocks {plan.name}_default = {{{blocks.rows}, {blocks.depth}, {int(blocks.pack_a)}, {int(blocks.pack_b)}}};",
        "",
        f"int {plan.name}_available(void) {{ return ({plan.library.available}) != 0; }}",
        "",
        *_sized(plan),
        "",
        f"void {plan.name}(const float *inputs, const float *weights, float *outputs) {{",
        f"    static const ptrdiff_t bounds[] = {{{bounds}}};",
        f"    {plan.name}_sized(bounds, &{plan.name}_default, inputs, weights, outputs);",
        "}",
    ]
    if product.is_matrix_product:
        lines += [
            "",
            f"void {plan.name}_gemm({_GEMM_PARAMETERS}) {{",
            "    const view va = {.base = a, .lane_stride = a_row, .depth_stride = 1, .plain = 1};",
            "    const view vb = {.base = b, .lane_stride = 1, .depth_stride = b_row, .plain = 1};",
            f"    multiply(&va, &vb, m, n, k, c, c_row, accumulate, &{plan.name}_default);",
            "}",
        ]
    return "\n".join([*lines, ""])


_GEMM_PARAMETERS = (
    "ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t a_row, const float *b, ptrdiff_t b_row, float *c, ptrdiff_t c_row,"
    " int accumulate"
)


def _sized_parameters(name: str) -> str:
    return f"const ptrdiff_t *bounds, const {name}_blocks *blocks, const float *inputs, const float *weights, float *outputs"


def _sized(plan: Plan) -> list[str]:
    """The operator at run-time bounds: strides from extents, views of both operands, loops around the product."""
    product, operator = plan.product, plan.product.operator
    names = [dim.name for dim in operator.dims]
    lines = [f"void {plan.name}_sized({_sized_parameters(plan.name)}) {{"]
    for tensor in operator.tensors:
        short = POINTERS[tensor.name]
        extents = []
        for table in tables(operator, tensor.name):
            reach = " + ".join(f"{factor} * (bounds[{d}] - 1)" for d, factor in enumerate(table.steps) if factor)
            extents.append(f"{1 + table.beyond}{' + ' + reach if reach else ''}")
        count = len(extents)
        lines.append(f"    const ptrdiff_t {short}_extent[] = {{{', '.join(extents)}}};")
        lines.append(f"    ptrdiff_t {short}_stride[{count}];")
        lines.append(f"    {short}_stride[{count - 1}] = 1;")
        if count > 1:
            lines.append(f"    for (int r = {count - 2}; r >= 0; --r) {short}_stride[r] = {short}_stride[r + 1] * {short}_extent[r + 1];")
    lines += _view("a", product.a, plan) + _view("b", product.b, plan)
    size = {side: " * ".join(f"bounds[{names.index(dim)}]" for dim in dims) or "1" for side, dims in
            (("m", product.rows), ("n", product.columns), ("k", product.depth))}  # fmt: skip
    lines += [f"    const ptrdiff_t {side} = {text};" for side, text in size.items()]
    row_stride = stride(operator, OUTPUTS, product.rows[-1]) if product.rows else "n"
    lines.append(f"    const ptrdiff_t c_row = {row_stride};")
    depth = 1
    for number, dim in enumerate(product.outer):
        lines.append("    " * depth + f"for (ptrdiff_t o{number} = 0; o{number} < bounds[{names.index(dim)}]; ++o{number}) {{")
        depth += 1
    pad = "    " * depth
    for view, operand in (("a", product.a), ("b", product.b)):
        lines.append(f"{pad}{view}.base = {POINTERS[operand.tensor]}{_offset(product, operand.tensor)};")
    lines.append(f"{pad}multiply(&a, &b, m, n, k, outputs{_offset(product, OUTPUTS)}, c_row, 0, blocks);")
    lines += ["    " * level + "}" for level in range(depth - 1, -1, -1)]
    return lines


def _offset(product: Product, tensor: str) -> str:
    moved = product.operator.tensor(tensor).dims
    return "".join(f" + o{n} * ({stride(product.operator, tensor, dim)})" for n, dim in enumerate(product.outer) if dim in moved)


def _view(name: str, operand: Operand, plan: Plan) -> list[str]:
    operator = plan.product.operator
    ranks = tables(operator, operand.tensor)
    short = POINTERS[operand.tensor]
    names = [dim.name for dim in operator.dims]
    lines = [f"    view {name} = {{.plain = {int(operand.plain)}, .ranks = {len(ranks)}}};"]
    if operand.plain:
        for side, dims in (("lane", operand.lanes), ("depth", operand.depth)):
            lines.append(f"    {name}.{side}_stride = {stride(operator, operand.tensor, dims[-1]) if dims else '1'};")
        return lines
    for rank, table in enumerate(ranks):
        lines.append(f"    {name}.extent[{rank}] = {short}_extent[{rank}]; {name}.stride[{rank}] = {short}_stride[{rank}];"
                     f" {name}.offset[{rank}] = {table.offset};")  # fmt: skip
    for side, dims in (("lane", operand.lanes), ("depth", operand.depth)):
        lines.append(f"    {name}.{side}_dims = {len(dims)};")
        for number, dim in enumerate(dims):
            at = names.index(dim)
            lines.append(f"    {name}.{side}_bound[{number}] = bounds[{at}];")
            lines += [f"    {name}.{side}_step[{number}][{rank}] = {t.steps[at]};" for rank, t in enumerate(ranks) if t.steps[at]]
    return lines


def header(plan: Plan) -> str:
    """The header of a kernel."""
    name, operator = plan.name, plan.product.operator
    layout = [f"   {POINTERS[t.name]}: {' x '.join(map(str, operator.shape(t.name)))} words of f32, row-major" for t in operator.tensors]
    dims = ", ".join(f"{dim.name} = {dim.bound}" for dim in operator.dims)
    gemm = ""
    if plan.product.is_matrix_product:
        gemm = f"""
/* C[m x n] = A[m x k] * B[k x n], or += when `accumulate`; row-major, the rows of each matrix `*_row` words apart. */
void {name}_gemm({_GEMM_PARAMETERS});
"""
    return f"""#ifndef {name.upper()}_H
#define {name.upper()}_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {{
#endif

/* {dims}
{chr(10).join(layout)}
   The result may not overlap an operand. */
void {name}(const float *inputs, const float *weights, float *outputs);

/* Cache blocks: rows of A, depth of one pass (at most those of the default), and whether operands are copied into panels. */
typedef struct {{
    ptrdiff_t rows, depth;
    int pack_a, pack_b;
}} {name}_blocks;
extern const {name}_blocks {name}_default;

/* The same operator with other bounds, in the order {", ".join(dim.name for dim in operator.dims)}; dims of bound 1 stay 1. */
void {name}_sized({_sized_parameters(name)});

/* Whether this machine has the instructions. */
int {name}_available(void);
{gemm}
#ifdef __cplusplus
}}
#endif
#endif
"""
