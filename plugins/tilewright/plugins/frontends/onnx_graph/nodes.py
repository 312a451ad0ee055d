"""ONNX operators in the words of PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tilewright.protocol.errors import InvalidInput

from .shapes import Values

#: Nothing is computed, and nothing needs to be moved.
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Transpose", "Slice", "Split", "Expand")
#: ONNX operator -> the call that counts the same.
SAME = {
    "Add": "add", "Mul": "mul", "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Gelu": "gelu", "Concat": "cat",
    "Cast": "_to_copy", "Pad": "constant_pad_nd", "Resize": "upsample_bilinear2d", "Upsample": "upsample_bilinear2d", "Tile": "repeat",
    "ScatterND": "index_put", "ScatterElements": "scatter", "GatherND": "index_select", "GatherElements": "index_select",
    "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_shuffle",
}  # fmt: skip
POINTWISE = (
    "Sub", "Div", "Pow", "Sqrt", "Exp", "Log", "Erf", "Neg", "Abs", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "HardSigmoid", "HardSwish",
    "Softplus", "Softsign", "Mish", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Equal", "Less", "Greater", "LessOrEqual",
    "GreaterOrEqual", "And", "Or", "Not", "Xor", "Min", "Max", "Mod", "Where", "IsNaN", "IsInf", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear", "Sum", "Mean", "BitShift", "Celu", "ThresholdedRelu",
)  # fmt: skip
REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod",
    "ReduceL2": "linalg_vector_norm",
    "ReduceL1": "linalg_vector_norm", "ReduceSumSquare": "linalg_vector_norm", "ReduceLogSumExp": "logsumexp", "ArgMax": "argmax",
    "ArgMin": "argmin",
}  # fmt: skip
Info = Callable[[str], Any]


class Attributes:
    """Attributes of a node, and its constant operands."""

    def __init__(self, node: Any, values: Values) -> None:
        import onnx

        self._node, self._values = node, values
        self._found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        value = self._found.get(name, default)
        return value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value

    def integers(self, name: str, position: int) -> tuple[int, ...] | None:
        """Integers given as an attribute, or as a constant operand; None when they are not given."""
        if name in self._found:
            value = self.get(name)
            return value if isinstance(value, tuple) else (value,)
        if position >= len(self._node.input) or not self._node.input[position]:
            return None
        tensor = self._node.input[position]
        if tensor not in self._values.constants:
            raise InvalidInput(f"{name} ({tensor}) depends on data")
        return tuple(int(each) for each in self._values.constants[tensor].ravel())


def as_call(node: Any, info: Info, rules: Any, attributes: Attributes) -> Any:
    """The call that counts the same; None when there is none."""
    named = [each for each in node.input if each]
    tensors, result = tuple(info(each) for each in named), info(node.output[0])
    refs = tuple(rules.Ref(at) for at in range(len(named)))

    def call(name: str, *arguments: Any, pointwise: bool = False, **keywords: Any) -> Any:
        return rules.Call(f"aten.{name}.default", arguments, tuple(sorted(keywords.items())), tensors, (result,), pointwise)

    kind = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return None
    if kind in ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"):
        return _convolution(kind, refs, tensors, result, attributes, call)
    if kind in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        a, b = (0, 3) if kind == "QLinearMatMul" else (0, 1)
        return _product(rules, tensors, refs, result, a, b)
    if kind == "Gemm":
        return _gemm(rules, tensors, refs, result, attributes)
    if kind in ("MaxPool", "AveragePool"):
        return _pool(kind, refs, tensors, result, attributes, call)
    if kind in ("GlobalAveragePool", "GlobalMaxPool"):
        axes = tuple(range(2, len(tensors[0].shape)))
        return call("mean" if kind == "GlobalAveragePool" else "amax", refs[0], axes)
    if kind in REDUCTIONS:
        reduced = (attributes.get("axis", 0),) if kind.startswith("Arg") else attributes.integers("axes", 1)
        return call(REDUCTIONS[kind], refs[0], reduced) if reduced is not None else call(REDUCTIONS[kind], refs[0])
    if kind in ("Softmax", "LogSoftmax"):
        return call("_softmax", refs[0], attributes.get("axis", -1))
    if kind == "BatchNormalization":
        return call("native_batch_norm", *refs)
    if kind == "LayerNormalization":
        axis = attributes.get("axis", -1) % len(tensors[0].shape)
        return call("native_layer_norm", refs[0], tensors[0].shape[axis:], *refs[1:])
    if kind in ("InstanceNormalization", "GroupNormalization"):
        n, c, *pixels = tensors[0].shape
        groups = c if kind == "InstanceNormalization" else attributes.get("num_groups")
        return call("native_group_norm", refs[0], refs[1], refs[2], n, c, math.prod(pixels), groups)
    if kind == "LRN":
        return call("lrn", *refs, pointwise=True)
    if kind == "Gather":
        table = tensors[0].static and attributes.get("axis", 0) == 0 and len(tensors[0].shape) == 2
        return call("embedding" if table else "index_select", *refs)
    if kind == "TopK":
        return call("topk", refs[0], 0, attributes.get("axis", -1))
    if kind == "CumSum":
        return call("cumsum", refs[0])
    if kind == "Concat":
        return call("cat", refs, attributes.get("axis"))
    if kind in SAME:
        return call(SAME[kind], *refs)
    return call(kind.lower(), *refs, pointwise=True) if kind in POINTWISE else None


def _pads(
    kind: str, attributes: Attributes, sides: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], out: tuple[int, ...]
) -> tuple[int, ...]:
    """Padding before the first element of each spatial axis."""
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (o - 1) * s + w - side) for o, s, w, side in zip(out, stride, window, sides, strict=True)]
        return tuple(each // 2 if auto == "SAME_UPPER" else -(-each // 2) for each in total)
    pads = attributes.get("pads") or (0,) * 2 * len(sides)
    return tuple(pads[: len(sides)]) if auto == "NOTSET" else (0,) * len(sides)


def _convolution(kind: str, refs: Any, tensors: Any, result: Any, attributes: Attributes, call: Any) -> Any:
    x, weight, bias = {"QLinearConv": (0, 3, 8), "ConvInteger": (0, 1, 99)}.get(kind, (0, 1, 2))
    axes = len(tensors[x].shape) - 2
    stride = attributes.get("strides") or (1,) * axes
    dilation = attributes.get("dilations") or (1,) * axes
    window = tuple(apart * (taps - 1) + 1 for apart, taps in zip(dilation, tensors[weight].shape[2:], strict=True))
    pads = _pads(kind, attributes, tensors[x].shape[2:], window, stride, result.shape[2:])
    added = refs[bias] if bias < len(refs) else None
    return call(
        "convolution",
        refs[x],
        refs[weight],
        added,
        stride,
        pads,
        dilation,
        kind == "ConvTranspose",
        (0,) * axes,
        attributes.get("group", 1),
    )


def _pool(kind: str, refs: Any, tensors: Any, result: Any, attributes: Attributes, call: Any) -> Any:
    window = attributes.get("kernel_shape")
    stride = attributes.get("strides") or (1,) * len(window)
    dilation = attributes.get("dilations") or (1,) * len(window)
    reach = tuple(apart * (taps - 1) + 1 for apart, taps in zip(dilation, window, strict=True))
    pads = _pads(kind, attributes, tensors[0].shape[2:], reach, stride, result.shape[2:])
    return call("max_pool2d_with_indices", refs[0], window, stride, pads, dilation)


def _product(rules: Any, tensors: Any, refs: Any, result: Any, first: int, second: int) -> Any:
    """``MatMul``: a plain product where one operand is a single matrix, else a batch of them."""
    a, b = tensors[first], tensors[second]
    (p, c), k = (a.shape[-2:] if len(a.shape) > 1 else (1, a.shape[0])), b.shape[-1] if len(b.shape) > 1 else 1
    lead_a, lead_b = math.prod(a.shape[:-2]), math.prod(b.shape[:-2])
    changed = list(tensors)
    if lead_b == 1:
        changed[first], changed[second] = _shaped(a, (lead_a * p, c)), _shaped(b, (c, k))
        out, name = _shaped(result, (lead_a * p, k)), "mm"
    else:
        lead = math.prod(result.shape[:-2])
        if lead_b != lead or lead_a not in (1, lead):
            raise InvalidInput(f"a product of {a.shape} and {b.shape}, expected batches that are alike")
        changed[first] = _shaped(a, (lead, p, c), repeated=lead_a == 1 and lead > 1)
        changed[second], out, name = _shaped(b, (lead, c, k)), _shaped(result, (lead, p, k)), "bmm"
    return rules.Call(f"aten.{name}.default", (refs[first], refs[second]), (), tuple(changed), (out,), False)


def _gemm(rules: Any, tensors: Any, refs: Any, result: Any, attributes: Attributes) -> Any:
    a, b = tensors[:2]
    p, k = result.shape
    c = a.shape[0] if attributes.get("transA", 0) else a.shape[1]
    changed = (_shaped(a, (p, c)), _shaped(b, (c, k)), *tensors[2:])
    if len(tensors) == 2:
        return rules.Call("aten.mm.default", refs, (), changed, (result,), False)
    return rules.Call("aten.addmm.default", (refs[2], refs[0], refs[1]), (), changed, (result,), False)


def _shaped(info: Any, shape: tuple[int, ...], *, repeated: bool = False) -> Any:
    return info._replace(shape=shape, repeated=(repeated, *(False,) * (len(shape) - 1)), image=False)
