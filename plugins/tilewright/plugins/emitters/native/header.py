"""A kernel's header, and the parameter lists it shares with the source."""

from __future__ import annotations

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .layout import POINTERS
from .numbers import C_TYPES
from .plan import Plan


def _c_type(plan: Plan, tensor: str) -> str:
    return C_TYPES[plan.numbers.word(tensor)]


def operands(plan: Plan) -> str:
    """The operator's tensors as parameters."""
    return f"const {_c_type(plan, INPUTS)} *inputs, const {_c_type(plan, WEIGHTS)} *weights, {_c_type(plan, OUTPUTS)} *outputs"


def sized_parameters(plan: Plan) -> str:
    """Parameters of the operator at run-time sizes."""
    return f"const ptrdiff_t *bounds, const {plan.name}_blocks *blocks, {operands(plan)}"


def gemm_parameters(plan: Plan) -> str:
    """Parameters of the bare matrix product."""
    a, b, c = (_c_type(plan, tensor) for tensor in (plan.product.a.tensor, plan.product.b.tensor, OUTPUTS))
    return (
        f"ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const {a} *a, ptrdiff_t a_row, const {b} *b, ptrdiff_t b_row, {c} *c, ptrdiff_t c_row,"
        " int accumulate"
    )


def header(plan: Plan) -> str:
    """The header of a kernel."""
    name, operator = plan.name, plan.product.operator
    layout = [
        f"   {POINTERS[t.name]}: {' x '.join(map(str, operator.shape(t.name)))} words of {plan.numbers.word(t.name)}, row-major"
        for t in operator.tensors
    ]
    dims = ", ".join(f"{dim.name} = {dim.bound}" for dim in operator.dims)
    gemm = ""
    if plan.product.is_matrix_product:
        gemm = f"""
/* C[m x n] = A[m x k] * B[k x n], or += when `accumulate`; row-major, the rows of each matrix `*_row` words apart. */
void {name}_gemm({gemm_parameters(plan)});
"""
    return f"""#ifndef {name.upper()}_H
#define {name.upper()}_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {{
#endif

/* {dims}
{chr(10).join(layout)}
   The result may not overlap an operand. */
void {name}({operands(plan)});

/* How the work is cut: rows, depth and columns of a block, whether operands are copied into panels, and whether a strip of rows
   passes all panels of columns before the next strip. Sizes beyond the work space of the default are cut down to it. */
typedef struct {{
    ptrdiff_t rows, depth, columns;
    int pack_a, pack_b, strips_first;
}} {name}_blocks;
extern const {name}_blocks {name}_default;

/* The same operator with other bounds, in the order {", ".join(dim.name for dim in operator.dims)}; dims of bound 1 stay 1. */
void {name}_sized({sized_parameters(plan)});

/* Whether this machine has the instructions. */
int {name}_available(void);
{gemm}
#ifdef __cplusplus
}}
#endif
#endif
"""
