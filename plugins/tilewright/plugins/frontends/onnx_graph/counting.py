"""Nodes of a graph as operators: each is put as the call of PyTorch that does the same, and counted by the rules for those."""

from __future__ import annotations

import math
from typing import Any

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import Workload

from .nodes import VIEWS, Attributes, as_call
from .shapes import MALFORMED, Values, has_graphs

#: Bits of ONNX element types.
BITS = {
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
}
_INT64 = 7


def count(name: str, model: Any, values: Values) -> tuple[Workload, list[str]]:
    """The workload of everything that can be counted, and a line for everything that cannot."""
    rules = registry.load("frontends", "torch").rules()
    graph = rules.Graph(name)
    images: set[str] = set()
    for tensor in (*(each.name for each in model.graph.input), *values.parameters):
        if tensor in values.shapes and not graph.knows(tensor):
            shape, kind = values.shapes[tensor]
            graph.outside(tensor, tensor, shape, BITS.get(kind, 32))
            if len(shape) == 4 and tensor not in values.static:
                images.add(tensor)
    unknown: list[str] = []
    for at, node in enumerate(values.nodes):
        label = node.name or f"{node.op_type}_{at}"
        outputs = [each for each in node.output if each]
        if all(each in values.static or each in values.constants for each in outputs):
            continue
        problem = _node(node, label, rules, graph, values, images)
        if problem:
            unknown.append(problem)
            for each in outputs:
                shape, kind = values.shapes.get(each, ((), 1))
                graph.outside(each, each, shape, BITS.get(kind, 32))
    return graph.build(f"onnx: {name}", _parameters(values)), unknown


def _parameters(values: Values) -> int:
    """Words of what nodes that are counted read of trained tensors; not the statistics that normalizations keep."""
    read: set[str] = set()
    for node in values.nodes:
        if not all(each in values.static for each in node.output if each):
            own = node.input[:3] if node.op_type == "BatchNormalization" else node.input
            read.update(each for each in own if each in values.shapes and _trained(each, values))
    return sum(math.prod(values.shapes[each][0]) for each in read)


def _node(node: Any, label: str, rules: Any, graph: Any, values: Values, images: set[str]) -> str:
    """Count one node; why it cannot be, if so."""
    if has_graphs(node):
        return f"{node.op_type} {label}: what it runs depends on data"
    named = [each for each in node.input if each]
    for tensor in named:
        if not graph.knows(tensor) and tensor in values.shapes:
            shape, kind = values.shapes[tensor]
            graph.outside(tensor, tensor, shape, BITS.get(kind, 32))
    hidden = [each for each in (*named, *node.output[:1]) if each not in values.shapes]
    if node.op_type in VIEWS and named and graph.knows(named[0]):
        graph.move(node.output[0], named[0])
        for other in node.output[1:]:
            graph.move(other, named[0])
        if named[0] in images:
            images.update(node.output)
        return f"{node.op_type} {label}: shape of {', '.join(hidden)} is unknown" if hidden else ""
    if hidden:
        return f"{node.op_type} {label}: shape of {', '.join(hidden)} is unknown"

    def info(tensor: str) -> Any:
        shape, kind = values.shapes[tensor]
        image = len(shape) == 4 and tensor in images
        return rules.Info(shape, (False,) * len(shape), BITS.get(kind, 32), _trained(tensor, values), image)

    try:
        call = as_call(node, info, rules, Attributes(node, values))
        if call is None:
            return f"{node.op_type} {label}: no rule for this operator"
        steps = rules.steps(call)
    except InvalidInput as error:
        return f"{node.op_type} {label}: {error}"
    except MALFORMED as error:
        return f"{node.op_type} {label}: malformed ({type(error).__name__}: {error})"
    keys = [each for each in node.input if each]
    graph.add(label, steps, keys, node.output[0])
    if node.op_type in ("Conv", "ConvTranspose", "QLinearConv", "ConvInteger") or any(each in images for each in named):
        images.add(node.output[0])
    return ""


def _trained(tensor: str, values: Values) -> bool:
    """What follows from parameters alone, but for shapes and indices (64-bit integers)."""
    return tensor in values.static and values.shapes[tensor][1] != _INT64
