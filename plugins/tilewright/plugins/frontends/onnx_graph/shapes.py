"""Shapes of all tensors of a graph, in one pass: per node, what is constant is computed and the rest is inferred."""

from __future__ import annotations

import math
from typing import Any

from tilewright.protocol.errors import InvalidInput

#: What reading of nodes and tensors ends in that do not have what they should.
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
#: Largest tensor that is computed, in elements: shapes and indices are small, weights need no values.
SMALL = 1 << 12
#: Operators that exporters compute shapes and indices with; no others are computed.
COMPUTED = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "CumSum", "Div", "Equal", "Expand", "Flatten",
    "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod",
    "Mul", "Neg", "NonZero", "Not", "Or", "Pad", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round",
    "ScatterND", "Sign", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
#: Of these, those whose results may be far larger than their operands.
_GROW = ("ConstantOfShape", "Expand", "Pad", "Range", "Tile", "ScatterND")


class Values:
    """What is known of a graph's tensors."""

    def __init__(self) -> None:
        #: Tensor -> (shape, ONNX element type).
        self.shapes: dict[str, tuple[tuple[int, ...], int]] = {}
        #: Tensor -> its value, where that is constant and small.
        self.constants: dict[str, Any] = {}
        #: Tensors that follow from trained parameters alone.
        self.static: set[str] = set()
        #: Everything that runs, in order: branches whose condition is constant stand in the place of their ``If``.
        self.nodes: list[Any] = []
        #: Parameters, those of such branches included.
        self.parameters: list[str] = []


def infer(model: Any, values: Values) -> Values:
    """Everything that follows from the shapes of the inputs."""
    import onnx

    _parameters(model.graph, values)
    opsets = {each.domain: each.version for each in model.opset_import}
    todo = list(reversed(model.graph.node))
    while todo:
        node = todo.pop()
        plain_names(node.name, node.op_type, node.domain, *node.input, *node.output)
        try:
            branch = _branch(node, values, onnx)
            if branch is None:
                _infer(node, values, opsets, onnx, model)
        except MALFORMED as error:
            raise InvalidInput(f"{node.op_type} {node.name or node.output[:1]}: malformed ({type(error).__name__}: {error})") from error
        if branch is None:
            values.nodes.append(node)
            continue
        _parameters(branch, values)
        results = [
            onnx.helper.make_node("Identity", [inner.name], [outer]) for inner, outer in zip(branch.output, node.output, strict=False)
        ]
        todo += [*reversed(results), *reversed(branch.node)]
    return values


def _parameters(graph: Any, values: Values) -> None:
    from onnx import numpy_helper

    for each in graph.initializer:
        plain_names(each.name)
        shape = tuple(each.dims)
        values.shapes[each.name] = (shape, each.data_type)
        values.static.add(each.name)
        values.parameters.append(each.name)
        if math.prod(shape) <= SMALL and not each.external_data:
            try:
                values.constants[each.name] = numpy_helper.to_array(each)
            except MALFORMED as error:
                raise InvalidInput(f"parameter {each.name!r}: does not hold what its shape {shape} says: {error}") from error


def plain_names(*names: str | bytes) -> None:
    """Raise `InvalidInput` for a name that is not UTF-8, which protobuf hands out as bytes."""
    for name in names:
        if isinstance(name, bytes):
            raise InvalidInput(f"name {name[:40]!r}: not UTF-8")


def _branch(node: Any, values: Values, onnx: Any) -> Any:
    """The graph that an ``If`` runs, where that is certain."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx") or len(node.input) != 1:
        return None
    chosen = values.constants.get(node.input[0])
    if chosen is None or chosen.size != 1:
        return None
    wanted = "then_branch" if bool(chosen.ravel()[0]) else "else_branch"
    return next((each.g for each in node.attribute if each.name == wanted and each.type == onnx.AttributeProto.GRAPH), None)


def has_graphs(node: Any) -> bool:
    """True for a node whose attributes hold graphs (branches, loops), which may read any tensor."""
    return any(each.type in (5, 10) for each in node.attribute)


def _infer(node: Any, values: Values, opsets: dict[str, int], onnx: Any, model: Any) -> None:
    named = [name for name in node.input if name]
    if node.op_type == "Shape" and named[0] in values.shapes and node.domain in ("", "ai.onnx"):
        _shape(node, values)
        return
    if has_graphs(node):
        return
    if all(name in values.static for name in named):
        values.static.update(name for name in node.output if name)
    _types(node, values, opsets, onnx, model)
    if node.op_type in COMPUTED and node.domain in ("", "ai.onnx") and all(name in values.constants for name in named):
        _compute(node, values, opsets, onnx)


def _shape(node: Any, values: Values) -> None:
    import numpy as np

    shape = values.shapes[node.input[0]][0]
    start, end = (next((each.i for each in node.attribute if each.name == name), None) for name in ("start", "end"))
    found = np.array(shape[start:end], dtype=np.int64)
    values.constants[node.output[0]] = found
    values.static.add(node.output[0])
    values.shapes[node.output[0]] = (found.shape, 7)


def _compute(node: Any, values: Values, opsets: dict[str, int], onnx: Any) -> None:
    """The value of a node of constants, if it is small and the library can compute it."""
    import warnings

    from onnx.reference import ReferenceEvaluator

    known = values.shapes.get(node.output[0])
    if (known is None and node.op_type in _GROW) or (known is not None and math.prod(known[0]) > SMALL):
        return
    inputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in dict.fromkeys(node.input) if name]
    outputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in node.output if name]
    single = onnx.helper.make_graph([node], "single", inputs, outputs)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = onnx.helper.make_model(single, opset_imports=imports)
            results = ReferenceEvaluator(made).run(None, {name: values.constants[name] for name in node.input if name})
    except Exception:  # what the library cannot compute stays unknown, and is listed as such if it matters
        return
    for name, result in zip([name for name in node.output if name], results, strict=False):
        if getattr(result, "size", SMALL + 1) <= SMALL:
            values.constants[name] = result
            values.shapes[name] = (tuple(result.shape), onnx.helper.np_dtype_to_tensor_dtype(result.dtype))


def _types(node: Any, values: Values, opsets: dict[str, int], onnx: Any, model: Any) -> None:
    from onnx import numpy_helper, shape_inference

    if not all(name in values.shapes for name in node.input if name):
        return
    types = {name: onnx.helper.make_tensor_type_proto(values.shapes[name][1], list(values.shapes[name][0])) for name in node.input if name}
    data = {name: numpy_helper.from_array(values.constants[name], name) for name in types if name in values.constants}
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, opsets.get(domain, 1)), domain)
        found = shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=list(model.opset_import), ir_version=model.ir_version
        )
    except Exception:  # no schema, or no rule: the outputs stay unknown, and are listed as such if they matter
        found = {}
    for name in node.output:
        if name in found:
            tensor = found[name].tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                values.shapes[name] = (tuple(dim.dim_value for dim in tensor.shape.dim), tensor.elem_type)
