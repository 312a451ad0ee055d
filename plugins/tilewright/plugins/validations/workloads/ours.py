"""Our operators in the words of the file."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Edge, Node, Operator, Workload

from .reference import Key


class Group(msgspec.Struct):
    """Operators of one key: their number, and the figures of the first."""

    count: int
    macs: int
    read_bytes: int
    write_bytes: int
    #: None: not comparable.
    flops: int | None


def groups(workload: Workload) -> dict[Key, Group]:
    """All operators of a workload, grouped as the file groups them."""
    found: dict[Key, Group] = {}
    edges = {edge.name: edge for edge in workload.edges}
    for nodes in _calls(workload):
        key, group = _describe(workload, edges, nodes)
        if key in found:
            found[key].count += 1
        else:
            found[key] = group
    return found


def _calls(workload: Workload) -> Iterable[list[Node]]:
    """Nodes that one call of the reference implementation does: parts of one product with the same module, weights and inputs."""
    part: list[Node] = []
    for node in workload.nodes:
        same = part and all(node.tensors.get(name) and node.tensors.get(name) == part[0].tensors.get(name) for name in (WEIGHTS, INPUTS))
        if same and node.module == part[0].module:
            part.append(node)
            continue
        if part:
            yield part
        part = [node]
    if part:
        yield part


def _describe(workload: Workload, edges: dict[str, Edge], nodes: list[Node]) -> tuple[Key, Group]:
    operators = [workload.operators[node.operator] for node in nodes]
    first = operators[0]
    group = Group(
        count=1,
        macs=sum(operator.macs for operator in operators),
        read_bytes=sum(operator.read_bytes for operator in operators),
        write_bytes=sum(operator.write_bytes for operator in operators),
        flops=None if first.is_contraction else first.flops,
    )
    if not first.is_contraction:
        if first.function == "pool" and first.iterations != first.elements(INPUTS):
            group.flops = None  # overlapping windows: the file counts inputs, we count taps
        return _key(first), group
    if "R" in first.bounds and len(nodes) > 1:
        # A transposed convolution: its phases share the input and the bias, which are read once.
        weight, x = edges[nodes[0].tensors[WEIGHTS]], edges[nodes[0].tensors[INPUTS]]
        c, k, r, s = weight.shape
        n, _, rows, columns = x.shape
        words = math.prod(weight.shape) + math.prod(x.shape) + first.bias_words
        group.read_bytes = -(-words * x.bits // 8)
        stride = math.isqrt(len(nodes))
        return Key("conv_transpose", (r, s, columns, rows, c, k, n, stride, stride, 1, 1, 1), x.bits, True), group
    key = _key(first)
    if key.kind == "grouped_matmul":
        m = sum(operator.bounds["G"] * operator.bounds["P"] for operator in operators)
        key = key._replace(dims=(m, *key.dims[1:]))
    return key, group


def _key(operator: Operator) -> Key:
    """The key of a single operator."""
    bounds, bits = operator.bounds, operator.tensor(OUTPUTS).bits
    if operator.is_contraction:
        static = operator.tensor(WEIGHTS).static
        if "R" in bounds:
            return _convolution(operator)
        dims = (bounds["P"], bounds["K"], bounds["C"])
        batch = bounds.get("G", 1) * bounds.get("H", 1)
        if static and "G" in bounds:
            return Key("grouped_matmul", (batch * bounds["P"], bounds["K"], bounds["C"], 1), bits, True)
        return Key("matmul", (*dims, batch), bits, static)
    function, words = operator.function, operator.elements(OUTPUTS)
    if function in ("softmax", "layernorm", "rmsnorm"):
        columns = math.prod(bounds[dim] for dim in operator.reduced_dims)
        return Key(function, (operator.iterations // columns, columns), bits)
    if function == "gather":
        return Key(function, (bounds["P"], bounds["K"]), bits)
    if function == "batchnorm":
        return Key(function, (words, bounds["K"]), bits)
    if function == "pool":
        return Key(function, (operator.elements(INPUTS), words), bits)
    if function in ("mean", "reduce"):
        return Key("reduce", (operator.iterations,), operator.tensor(INPUTS).bits)
    return Key(function, (words,), bits)


def _convolution(operator: Operator) -> Key:
    bounds = operator.bounds
    factors = {term.dim: term.coefficient for rank in operator.tensor(INPUTS).ranks for term in rank.terms}
    groups = bounds.get("G", 1)
    dense = "C" in bounds
    channels = (bounds["C"], bounds["K"]) if dense else (groups, groups)
    window = (bounds["R"], bounds["S"], bounds["P"], bounds["Q"])
    steps = (factors["P"], factors["Q"], factors["R"], factors["S"])
    dims = (*window, *channels, bounds["N"], *steps, groups)
    return Key("conv" if dense else "depthwise", dims, operator.tensor(OUTPUTS).bits, True)
