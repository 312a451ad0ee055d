"""Operators and workloads against closed forms and brute force."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.protocol.errors import InvalidOperator
from tilewright.protocol.workload import (
    FUNCTIONS,
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    Dim,
    Edge,
    Node,
    Operator,
    Rank,
    Tensor,
    Term,
    Workload,
    batched_matmul,
    conv2d,
    conv_transpose,
    depthwise,
    elementwise,
    matmul,
)

sizes = st.integers(1, 6)


def run(operator: Operator, operands: dict[str, Any]) -> Any:
    """What the operator computes, by its definition: index by index, zero outside of a tensor's extents."""
    bounds = operator.bounds
    result = np.zeros(operator.shape(operator.output))
    for point in itertools.product(*(range(bound) for bound in bounds.values())):
        at = dict(zip(bounds, point, strict=True))
        product = 1.0
        for tensor in operator.tensors:
            index = tuple(sum(term.coefficient * at[term.dim] for term in rank.terms) + rank.offset for rank in tensor.ranks)
            if tensor.name == operator.output:
                out = index
            elif all(0 <= i < extent for i, extent in zip(index, operator.shape(tensor.name), strict=True)):
                product *= operands[tensor.name][index]
            else:
                product = 0.0
        result[out] += product
    return result


def fill(operator: Operator, seed: int = 0) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {t.name: chance.integers(-3, 4, operator.shape(t.name)).astype(float) for t in operator.tensors if t.name != operator.output}


def direct_conv(inputs: Any, weights: Any, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]) -> Any:
    """Convolution by sliding windows over an explicitly padded input: N C Q P with weights C K R S; pairs are (width, height)."""
    padded = np.pad(inputs, ((0, 0), (0, 0), (padding[1], padding[1]), (padding[0], padding[0])))
    _, kernels, wide, high = weights.shape
    rows = (padded.shape[2] - (high - 1) * dilation[1] - 1) // stride[1] + 1
    columns = (padded.shape[3] - (wide - 1) * dilation[0] - 1) // stride[0] + 1
    result = np.zeros((inputs.shape[0], kernels, rows, columns))
    for y, x in itertools.product(range(rows), range(columns)):
        top, left = y * stride[1], x * stride[0]
        window = padded[
            :, :, top : top + (high - 1) * dilation[1] + 1 : dilation[1], left : left + (wide - 1) * dilation[0] + 1 : dilation[0]
        ]
        result[:, :, y, x] = np.einsum("nchw,ckwh->nk", window, weights)
    return result


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.data())
def test_convolution(r: int, s: int, p: int, q: int, c: int, k: int, data: st.DataObject) -> None:
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride, dilation = data.draw(pair), data.draw(pair)
    padding = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
    extent = tuple(
        (out - 1) * step + (tap - 1) * gap + 1 - 2 * pad
        for out, tap, step, gap, pad in zip((p, q), (r, s), stride, dilation, padding, strict=True)
    )
    if min(extent) < 1:
        with pytest.raises(InvalidOperator, match="is the padding too large"):
            conv2d(r=r, s=s, p=p, q=q, c=c, k=k, stride=stride, dilation=dilation, padding=padding)
        return
    operator = conv2d(r=r, s=s, p=p, q=q, c=c, k=k, n=2, stride=stride, dilation=dilation, padding=padding)
    assert operator.macs == r * s * p * q * c * k * 2
    assert operator.flops == 2 * operator.macs
    assert operator.shape(WEIGHTS) == (c, k, r, s)
    assert operator.shape(INPUTS) == (2, c, extent[1], extent[0])
    assert operator.shape(OUTPUTS) == (2, k, q, p)
    operands = fill(operator)
    expected = direct_conv(operands[INPUTS], operands[WEIGHTS], stride, padding, dilation)
    assert expected.shape == operator.shape(OUTPUTS)
    assert np.array_equal(run(operator, operands), expected)


def test_grouped_and_depthwise_convolution() -> None:
    grouped = conv2d(r=2, s=3, p=3, q=2, c=2, k=3, g=2)
    operands = fill(grouped)
    result = run(grouped, operands)
    for group in range(2):
        alone = direct_conv(operands[INPUTS][:, group], operands[WEIGHTS][group], (1, 1), (0, 0), (1, 1))
        assert np.array_equal(result[:, group], alone)
    assert grouped.macs == 2 * 3 * 3 * 2 * 2 * 3 * 2

    channels = depthwise(r=3, s=3, p=2, q=2, g=4, stride=(2, 2), padding=(1, 1))
    operands = fill(channels)
    result = run(channels, operands)
    for channel in range(4):
        alone = direct_conv(operands[INPUTS][:, [channel]], operands[WEIGHTS][channel][None, None], (2, 2), (1, 1), (1, 1))
        assert np.array_equal(result[:, [channel]], alone)
    assert channels.macs == 3 * 3 * 2 * 2 * 4
    assert channels.shape(INPUTS) == (1, 4, 3, 3)


def test_true_extent() -> None:
    """ResNet's first layer: 224 wide, of which stride 2 and padding 3 leave one column unread."""
    layer = conv2d(r=7, s=7, p=112, q=112, c=3, k=64, stride=(2, 2), padding=(3, 3), extent=(224, 224))
    assert layer.shape(INPUTS) == (1, 3, 224, 224)
    assert conv2d(r=7, s=7, p=112, q=112, c=3, k=64, stride=(2, 2), padding=(3, 3)).shape(INPUTS) == (1, 3, 223, 223)
    assert layer.macs == 118_013_952


def test_products() -> None:
    product = matmul(p=3, c=4, k=5)
    operands = fill(product)
    assert np.array_equal(run(product, operands), operands[INPUTS] @ operands[WEIGHTS])
    assert (product.macs, product.read_bytes, product.write_bytes) == (60, 4 * 5 + 3 * 4, 15)
    assert product.arithmetic_intensity == 120 / 47
    assert product.tensor(WEIGHTS).static
    assert not matmul(p=3, c=4, k=5, static=False).tensor(WEIGHTS).static


def test_attention_and_grouped_queries() -> None:
    heads = batched_matmul(g=3, p=2, c=4, k=5)
    operands = fill(heads)
    assert np.array_equal(run(heads, operands), operands[INPUTS] @ operands[WEIGHTS])
    assert heads.macs == 3 * 2 * 4 * 5
    assert all("G" in tensor.dims for tensor in heads.tensors)
    assert not heads.tensor(WEIGHTS).static

    grouped = batched_matmul(g=2, p=3, c=4, k=5, h=4)
    operands = fill(grouped)
    assert operands[WEIGHTS].shape == (2, 4, 5), "one key/value head for four query heads"
    assert operands[INPUTS].shape == (2, 4, 3, 4)
    assert np.array_equal(run(grouped, operands), np.einsum("ghpc,gck->ghpk", operands[INPUTS], operands[WEIGHTS]))
    assert grouped.macs == 2 * 4 * 3 * 4 * 5
    assert "H" not in grouped.tensor(WEIGHTS).dims


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_transposed_convolution(r: int, s: int, p: int, q: int, c: int, k: int, across: int, down: int) -> None:
    """Its phases cover every output that has taps exactly once, and together are the scatter that defines it."""
    phases = conv_transpose(r=r, s=s, p=p, q=q, c=c, k=k, stride=(across, down))
    inputs = np.random.default_rng(1).integers(-3, 4, (c, q, p)).astype(float)
    weights = np.random.default_rng(2).integers(-3, 4, (c, k, r, s)).astype(float)
    expected = np.zeros((k, (q - 1) * down + s, (p - 1) * across + r))
    for y, x, v, u in itertools.product(range(q), range(p), range(s), range(r)):
        expected[:, y * down + v, x * across + u] += inputs[:, y, x] @ weights[:, :, u, v]

    result = np.zeros_like(expected)
    written = np.zeros(expected.shape[1:], int)
    starts = [(i, j) for i in range(across) for j in range(down) if i < r and j < s]
    assert len(phases) == len(starts)
    for (i, j), phase in zip(starts, phases, strict=True):
        taps = weights[:, :, i::across, j::down][:, :, ::-1, ::-1]  # a convolution is written as a correlation
        assert phase.shape(WEIGHTS) == taps.shape
        assert phase.shape(INPUTS) == (1, c, q, p), "the true input, padding apart"
        result[:, j::down, i::across] += run(phase, {INPUTS: inputs[None], WEIGHTS: taps})[0]
        written[j::down, i::across] += 1
    assert np.array_equal(result, expected)
    assert written.max() == 1
    assert np.all(expected[:, written == 0] == 0)
    if r >= across and s >= down:
        assert written.min() == 1
    assert sum(phase.macs for phase in phases) >= p * q * r * s * c * k


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions(function: str) -> None:
    operator = elementwise(function, {"M": 6, "N": 7}, operands=2, reduced=("N",), bits=16)
    per_element, passes = FUNCTIONS[function]
    assert (operator.macs, operator.flops, operator.passes) == (0, per_element * 42, passes)
    assert (operator.read_bytes, operator.write_bytes) == (2 * 42 * 2, 42 * 2)
    assert [tensor.name for tensor in operator.tensors] == ["Inputs", "Inputs2", "Outputs"]
    assert operator.elements("Inputs2") == 42
    assert not operator.is_contraction


def test_bytes_round_up() -> None:
    assert matmul(p=1, c=3, k=1, bits=4).write_bytes == 1
    assert matmul(p=1, c=3, k=1, bits=4).read_bytes == 2 + 2


def test_bias() -> None:
    layer = msgspec.structs.replace(conv2d(r=1, s=1, p=2, q=2, c=3, k=5, g=2), bias_bits=32)
    assert layer.bias_words == 5 * 2
    assert layer.read_bytes == 3 * 5 * 2 + 2 * 3 * 4 + 10 * 4
    assert matmul(p=2, c=3, k=4).bias_words == 0


def product(**changes: Any) -> Operator:
    return msgspec.structs.replace(matmul(p=2, c=3, k=4), **changes)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: product(dims=(Dim("P", 2), Dim("P", 3))), r"dims: \['P', 'P'\] names a dim twice"),
        (lambda: matmul(p=0, c=1, k=1), r"dims\.P: bound is 0, expected an integer >= 1"),
        (lambda: product(function="sinus"), r"function: 'sinus' is unknown, expected one of multiply_accumulate, add, mul"),
        (lambda: product(tensors=(Tensor(OUTPUTS, ()), Tensor(OUTPUTS, ()))), r"tensors: \['Outputs', 'Outputs'\] names a tensor twice"),
        (lambda: product(output="Result"), r"output: 'Result' is not one of the tensors \['Weights', 'Inputs', 'Outputs'\]"),
        (lambda: product(accumulator_bits=0), r"accumulator_bits: 0, expected >= 1"),
        (lambda: product(bias_bits=-1), r"bias_bits: -1 for multiply_accumulate, expected >= 0"),
        (lambda: msgspec.structs.replace(elementwise("add", {"M": 1}), bias_bits=8), r"bias_bits: 8 for add, expected >= 0, and 0 unless"),
        (lambda: product(reduced_dims=("Z",)), r"reduced_dims: 'Z' is not one of the dims \['P', 'C', 'K'\]"),
        (lambda: matmul(p=1, c=1, k=1, bits=0), r"tensors\.Weights\.bits: 0, expected >= 1"),
        (lambda: product(tensors=(Tensor(OUTPUTS, (Rank((Term("Z"),)),)),)), r"tensors\.Outputs: dim 'Z' is not one of \['P', 'C', 'K'\]"),
        (lambda: product(tensors=(Tensor(OUTPUTS, (Rank((Term("P", 0),)),)),)), r"tensors\.Outputs: coefficient 0 of P, expected >= 1"),
        (lambda: conv2d(r=1, s=1, p=1, q=1, c=1, k=1, padding=(1, 0)), r"tensors\.Inputs: extent -1, expected >= 1 \(is the padding"),
    ],
)
def test_contradictions(make: Any, text: str) -> None:
    with pytest.raises(InvalidOperator, match=text):
        make()


def test_no_such_tensor() -> None:
    with pytest.raises(KeyError, match="Bias"):
        matmul(p=1, c=1, k=1).tensor("Bias")


def test_equal_operators_are_one_task() -> None:
    first, second = matmul(p=1, c=2, k=3), matmul(p=1, c=2, k=4)
    workload = Workload.build("model", [("a", first), ("b", second), ("a", first), ("c", matmul(p=1, c=2, k=3))])
    assert workload.operators == (first, second)
    assert [node.id for node in workload.nodes] == ["a", "b", "a#1", "c"]
    assert [(task.index, task.count, task.name) for task in workload.tasks] == [(0, 3, "a"), (1, 1, "b")]
    assert [node.id for node in workload.tasks[0].nodes] == ["a", "a#1", "c"]
    assert workload.macs == 3 * 6 + 8


def test_a_task_without_a_module_is_named_by_its_node() -> None:
    workload = Workload("model", (matmul(p=1, c=1, k=1),), (Node("n0", 0),))
    assert workload.tasks[0].name == "n0"


def test_names_that_look_like_repeats() -> None:
    """A module may be called what a repeated one is called."""
    layer = matmul(p=1, c=1, k=1)
    workload = Workload.build("model", [("a", layer), ("a", layer), ("a#1", layer)])
    assert len({node.id for node in workload.nodes}) == 3


@pytest.mark.parametrize(
    ("nodes", "edges", "text"),
    [
        ((Node("a", 0), Node("a", 0)), (), "nodes: two nodes have one id"),
        ((Node("a", 1),), (), r"nodes\.a\.operator: 1, expected an index below 1"),
        ((Node("a", -1),), (), r"nodes\.a\.operator: -1"),
        ((Node("a", 0),), (Edge("x", (1,), producer="b"),), r"edges\.x: node 'b' does not exist"),
        ((Node("a", 0),), (Edge("x", (1,), consumers=("a", "c")),), r"edges\.x: node 'c' does not exist"),
    ],
)
def test_graphs_that_do_not_hold_together(nodes: tuple[Node, ...], edges: tuple[Edge, ...], text: str) -> None:
    with pytest.raises(InvalidOperator, match=text):
        Workload("model", (matmul(p=1, c=1, k=1),), nodes, edges)


def test_names_can_be_taken_off() -> None:
    """Two networks that differ in names only are equal without them; the graph and the counts stay."""

    def network(a: str, b: str, edge: str) -> Workload:
        nodes = (Node(a, 0, module=f"m.{a}", tensors={INPUTS: edge}), Node(b, 0, tensors={WEIGHTS: "constant"}))
        return Workload(a + b, (matmul(p=2, c=3, k=4),), nodes, (Edge(edge, (2, 3), producer=b, consumers=(a,)),), source=f"{a}.yaml")

    first, second = network("a", "b", "e"), network("c", "d", "f")
    assert first != second
    assert first.nameless() == second.nameless()
    assert first.nameless().edges[0].producer == first.nameless().nodes[1].id
    assert [(task.operator, task.count) for task in first.nameless().tasks] == [(task.operator, task.count) for task in first.tasks]
