"""Layers that several model families are made of: each appends one node to a `Graph` and returns its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Dim, Operator, Rank, Tensor, Term, elementwise, matmul

from .graph import Graph

#: Bits of token and position ids.
ID_BITS = 64
#: A view of a result: its shape as consumers see it, and the rank of the result that each axis is (a factor of).
View = tuple[tuple[int, ...], tuple[int, ...]]
NO_VIEW: View = ((), ())


def rank(dim: str, extent: int | None = None, offset: int = 0) -> Rank:
    """An index that is one dim."""
    return Rank((Term(dim),), offset, extent)


def linear(graph: Graph, module: str, x: str, p: int, c: int, k: int, *, bias: bool = True, weight: str = "", view: View = NO_VIEW) -> str:
    """``x[p, c] @ weight[c, k] (+ bias[k])``; `weight` names a tied parameter."""
    bits = graph.bits
    operator = matmul(p=p, c=c, k=k, bits=bits)
    also: tuple[str, ...] = ()
    if bias:
        operator = msgspec.structs.replace(operator, bias_bits=bits)
        also = (graph.parameter(f"{module}.bias", k),)
    operands = {INPUTS: x, WEIGHTS: graph.parameter(weight or f"{module}.weight", c, k)}
    return graph.add(module, operator, operands, also=also, shape=view[0], axes=view[1])


def layernorm(graph: Graph, module: str, x: str, p: int, k: int) -> str:
    """Layer normalization over `k`, with its scale and shift vectors as operands."""
    base = elementwise("layernorm", {"P": p, "K": k}, reduced=("K",), bits=graph.bits)
    vectors = tuple(Tensor(name, (rank("K"),), graph.bits, static=True) for name in ("Scale", "Shift"))
    operator = msgspec.structs.replace(base, tensors=(base.tensors[0], *vectors, base.tensors[1]))
    operands = {INPUTS: x, "Scale": graph.parameter(f"{module}.weight", k), "Shift": graph.parameter(f"{module}.bias", k)}
    return graph.add(module, operator, operands)


def pointwise(
    graph: Graph,
    module: str,
    function: str,
    shape: Mapping[str, int],
    *operands: str,
    reduced: tuple[str, ...] = (),
    bits: int = 0,
    also: Sequence[str] = (),
) -> str:
    """An element-wise (or normalizing) function of operands that all have one shape."""
    operator = elementwise(function, shape, operands=len(operands), reduced=reduced, bits=bits or graph.bits)
    names = [INPUTS if i == 0 else f"{INPUTS}{i + 1}" for i in range(len(operands))]
    return graph.add(module, operator, dict(zip(names, operands, strict=True)), also=also)


def broadcast(
    graph: Graph, module: str, function: str, shape: Mapping[str, int], x: str, y: str, y_dims: tuple[str, ...], bits: int = 0
) -> str:
    """An element-wise function of `x` (all dims of `shape`) and `y` (only `y_dims`)."""
    base = elementwise(function, shape, operands=2, bits=bits or graph.bits)
    second = msgspec.structs.replace(base.tensors[1], ranks=tuple(rank(dim) for dim in y_dims))
    return graph.add(
        module, msgspec.structs.replace(base, tensors=(base.tensors[0], second, base.tensors[2])), {INPUTS: x, f"{INPUTS}2": y}
    )


def concatenate(
    graph: Graph,
    module: str,
    shape: Mapping[str, int],
    dim: str,
    parts: Sequence[tuple[str, int]],
    *,
    view: View = NO_VIEW,
    bits: int = 0,
    also: Sequence[str] = (),
) -> str:
    """`parts` (tensor, extent) one after another along `dim`: each operand is zero outside of its own extent."""
    base = elementwise("copy", shape, operands=len(parts), bits=bits or graph.bits)
    tensors, operands, start = [], {}, 0
    for tensor, (name, extent) in zip(base.tensors, parts, strict=False):
        ranks = tuple(rank(each, extent, -start) if each == dim else rank(each) for each in shape)
        tensors.append(msgspec.structs.replace(tensor, ranks=ranks))
        operands[tensor.name] = name
        start += extent
    operator = msgspec.structs.replace(base, tensors=(*tensors, base.tensors[-1]))
    return graph.add(module, operator, operands, also=also, shape=view[0], axes=view[1])


def embedding(graph: Graph, module: str, ids: str, rows: int, table: int, k: int, *, stored: int | None = None) -> str:
    """`rows` rows of a table of `table` x `k`, chosen by 64-bit ids, of which `stored` exist (None: one per row).

    Its operand is the rows that are read, not the table.
    """
    operator = Operator(
        dims=(Dim("P", rows), Dim("K", k)),
        tensors=(
            Tensor(WEIGHTS, (rank("P"), rank("K")), graph.bits, static=True),
            Tensor("Index", (rank("P", stored),), ID_BITS),
            Tensor(OUTPUTS, (rank("P"), rank("K")), graph.bits),
        ),
        function="gather",
    )
    return graph.add(module, operator, {WEIGHTS: graph.parameter(f"{module}.weight", table, k), "Index": ids})


def convert(graph: Graph, module: str, shape: Mapping[str, int], x: str, bits: int, to_bits: int) -> str:
    """The same values in words of another width."""
    base = elementwise("copy", shape, bits=bits)
    result = msgspec.structs.replace(base.tensors[1], bits=to_bits)
    return graph.add(module, msgspec.structs.replace(base, tensors=(base.tensors[0], result)), {INPUTS: x})


def positions(graph: Graph, module: str, p: int) -> str:
    """Position ids ``offset + 0 ... p - 1``: counted up, then moved by the number of tokens that came before."""
    counted = graph.add(module, elementwise("copy", {"P": p}, operands=0, bits=ID_BITS), {})
    return pointwise(graph, module, "add", {"P": p}, counted, bits=ID_BITS)
