"""A kernel's header, and the parameter lists it shares with the source."""

from __future__ import annotations

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .finish import STEPS
from .layout import POINTERS
from .numbers import C_TYPES
from .plan import Plan


def operands(plan: Plan, weights: str = "") -> str:
    """The operator's tensors as parameters (`weights`: another declaration of them), and what its last steps need."""
    said = weights or f"const {plan.c_type(WEIGHTS)} *weights"
    return f"const {plan.c_type(INPUTS)} *inputs, {said}, {plan.c_type(OUTPUTS)} *outputs" + "".join(
        f", {declared}" for declared, _ in _more(plan)
    )


def arguments(plan: Plan) -> str:
    """Names of what the last steps need, after the tensors."""
    return "".join(f", {name}" for _, name in _more(plan))


def _more(plan: Plan) -> list[tuple[str, str]]:
    found = []
    if "bias" in plan.finish.steps:
        found.append((f"const {C_TYPES[plan.numbers.result]} *bias", "bias"))
    if plan.finish.narrows:
        found += [("const float *scale", "scale"), ("int zero_point", "zero_point")]
    return found


def sized_parameters(plan: Plan) -> str:
    """Parameters of the operator at run-time sizes."""
    return f"const ptrdiff_t *bounds, const {plan.name}_blocks *blocks, {operands(plan)}"


def gemm_parameters(plan: Plan) -> str:
    """Parameters of the bare matrix product."""
    a, b, c = (plan.c_type(tensor) for tensor in (plan.product.a.tensor, plan.product.b.tensor, OUTPUTS))
    return (
        f"ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const {a} *a, ptrdiff_t a_row, const {b} *b, ptrdiff_t b_row, {c} *c, ptrdiff_t c_row,"
        " int accumulate"
    )


def header(plan: Plan) -> str:
    """The header of a kernel."""
    name, operator = plan.name, plan.product.operator
    layout = [
        f"   {POINTERS[t.name]}: {' x '.join(map(str, operator.shape(t.name)))} words of {plan.word(t.name)}, row-major"
        for t in operator.tensors
    ]
    dims = ", ".join(f"{dim.name} = {dim.bound}" for dim in operator.dims)
    gemm = ""
    layout += [f"   then: {STEPS[step]}" for step in plan.finish.steps]
    if plan.beta:
        layout.append("   The product is added to what is in the result.")
    if plan.has_gemm:
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
{_prepacked(plan)}{gemm}
#ifdef __cplusplus
}}
#endif
#endif
"""


def _prepacked(plan: Plan) -> str:
    """Declarations for weights that are packed once."""
    if not plan.ready:
        return ""
    name = plan.name
    return f"""
/* Weights packed once, ahead of many calls: into `{name}_packed_bytes()` bytes, aligned to 64. */
size_t {name}_packed_bytes(void);
void {name}_pack(const {plan.c_type(WEIGHTS)} *weights, void *packed);
void {name}_prepacked({operands(plan, "const void *packed")});
"""
