"""Reads an operator as a matrix product: which dims are rows, columns and depth, and where each operand's words lie.

With vectors along the columns of a row-major result, the columns are the innermost run of result dims that touch only
one operand. That operand is B, the other is A; dims between are rows; what is left runs around the product::

    matmul          Outputs[P, K]         columns K (B = Weights), rows P (A = Inputs)
    batched, GQA    Outputs[G, H, P, K]   columns K, rows H x P, loop over G
    convolution     Outputs[N, K, Q, P]   columns Q x P (B = Inputs, gathered), rows K (A = Weights), loop over N
    depthwise       Outputs[N, G, Q, P]   columns Q x P, one row, loop over N x G
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.protocol.errors import InvalidOperator
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, Tensor


@dataclass(frozen=True)
class Operand:
    """One operand as lanes x depth."""

    tensor: str
    lanes: tuple[str, ...]
    depth: tuple[str, ...]
    #: Lanes and depth each advance by one constant stride, and nothing is padded.
    plain: bool
    #: The stride of the lanes is one word.
    unit: bool


@dataclass(frozen=True)
class Product:
    """An operator as ``C[rows, columns] = A[rows, depth] x B[depth, columns]`` inside of `outer` loops."""

    operator: Operator
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    depth: tuple[str, ...]
    outer: tuple[str, ...]
    a: Operand
    b: Operand

    def size(self, dims: tuple[str, ...]) -> int:
        """Product of the bounds of some dims."""
        total = 1
        for dim in dims:
            total *= self.operator.bounds[dim]
        return total

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and depth of one product."""
        return self.size(self.rows), self.size(self.columns), self.size(self.depth)

    @property
    def is_matrix_product(self) -> bool:
        """True when both operands are plain matrices, B's rows contiguous."""
        return self.a.plain and self.b.plain and self.b.unit


def product_of(operator: Operator) -> Product:
    """Read an operator as a matrix product. Raises InvalidOperator, naming what does not fit."""
    if not operator.is_contraction:
        raise InvalidOperator(f"function: {operator.function!r}, expected a contraction (multiply_accumulate)")
    names = {tensor.name for tensor in operator.tensors}
    if names != {WEIGHTS, INPUTS, OUTPUTS} or operator.output != OUTPUTS:
        raise InvalidOperator(
            f"tensors: {sorted(names)} with output {operator.output!r}, expected {INPUTS}, {WEIGHTS} and output {OUTPUTS}"
        )
    order = _result_order(operator)
    touches = {dim: tuple(name for name in (WEIGHTS, INPUTS) if dim in operator.tensor(name).dims) for dim in order}
    for dim, operands in touches.items():
        if not operands:
            raise InvalidOperator(f"dims.{dim}: moves {OUTPUTS} but no operand")
    order = [dim for dim in order if operator.bounds[dim] > 1]
    columns = _innermost_run(order, touches)
    b_name = touches[columns[0]][0] if columns else INPUTS
    a_name = WEIGHTS if b_name == INPUTS else INPUTS
    rows = [dim for dim in _innermost_run(order[: len(order) - len(columns)], touches) if touches[dim] == (a_name,)]
    outer = order[: len(order) - len(columns) - len(rows)]
    depth = _depth(operator, a_name, b_name)
    return Product(
        operator,
        tuple(rows),
        tuple(columns),
        depth,
        tuple(outer),
        _operand(operator, a_name, tuple(rows), depth, outer),
        _operand(operator, b_name, tuple(columns), depth, outer),
    )


def _result_order(operator: Operator) -> list[str]:
    """The result's dims, outermost first."""
    order = []
    for rank in operator.tensor(OUTPUTS).ranks:
        if len(rank.terms) != 1 or rank.terms[0].coefficient != 1 or rank.offset or rank.extent is not None:
            raise InvalidOperator(f"tensors.{OUTPUTS}: an index that is not one plain dim; a product writes each word once")
        order.append(rank.terms[0].dim)
    return order


def _innermost_run(order: list[str], touches: dict[str, tuple[str, ...]]) -> list[str]:
    """The longest run of innermost dims that all touch the same one operand."""
    start = len(order)
    while start and len(touches[order[start - 1]]) == 1 and touches[order[start - 1]] == touches[order[-1]]:
        start -= 1
    return order[start:]


def _depth(operator: Operator, *names: str) -> tuple[str, ...]:
    """Reduced dims of more than one trip, in the order in which A's ranks mention them."""
    moved = operator.tensor(OUTPUTS).dims
    mentioned = [term.dim for name in names for rank in operator.tensor(name).ranks for term in rank.terms]
    return tuple(dim for dim in dict.fromkeys(mentioned) if dim not in moved and operator.bounds[dim] > 1)


def _operand(operator: Operator, name: str, lanes: tuple[str, ...], depth: tuple[str, ...], outer: list[str]) -> Operand:
    tensor = operator.tensor(name)
    for rank in tensor.ranks:
        inside = [term.dim for term in rank.terms if operator.bounds[term.dim] > 1]
        if (rank.offset or rank.extent is not None) and any(dim in outer for dim in inside):
            raise InvalidOperator(f"tensors.{name}: a padded index moved by {inside}, a dim outside of the product")
    padded = any(rank.offset or rank.extent is not None for rank in tensor.ranks)
    plain = not padded and _one_stride(operator, tensor, lanes) and _one_stride(operator, tensor, depth)
    last = tensor.ranks[-1]
    unit = bool(lanes) and [(term.dim, term.coefficient) for term in last.terms if operator.bounds[term.dim] > 1] == [(lanes[-1], 1)]
    return Operand(name, lanes, depth, plain, unit)


def _one_stride(operator: Operator, tensor: Tensor, dims: tuple[str, ...]) -> bool:
    """True when consecutive words of the combined dims are a constant apart: they index adjacent ranks, alone."""
    if len(dims) <= 1:
        return True
    ranks = []
    for rank in tensor.ranks:
        moving = [term for term in rank.terms if operator.bounds[term.dim] > 1]
        if moving:
            ranks.append(moving)
    places = [at for at, moving in enumerate(ranks) if any(term.dim in dims for term in moving)]
    alone = all(len(ranks[at]) == 1 and ranks[at][0].coefficient == 1 for at in places)
    adjacent = places == list(range(places[0], places[0] + len(dims))) if places else False
    return alone and adjacent and tuple(ranks[at][0].dim for at in places) == dims
