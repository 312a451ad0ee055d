"""What is computed: operators as affine einsums, and workloads as graphs of them.

Symbols used everywhere in Tilewright (Timeloop's, for convolutions and matrix products alike):

====  ==========================================  =======================
dim   convolution                                 matrix product
====  ==========================================  =======================
R S   filter width, height                        --
P Q   output width, height                        P = rows (M)
C     input channels (reduced)                    C = contraction (K)
K     output channels                             K = columns (N)
N     batch                                       --
G     group, or depthwise channel                 batch (heads)
H     query heads sharing one key/value head      the same
====  ==========================================  =======================

Tensors are called ``Weights``, ``Inputs`` and ``Outputs``; in an attention product the "Weights" are the second
operand and are not static.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from .errors import InvalidOperator

WEIGHTS, INPUTS, OUTPUTS = "Weights", "Inputs", "Outputs"

#: Scalar operations per element of each element-wise or normalizing function (a fused multiply-add counts as two) and
#: the number of passes over its input, counted as the reference profiles do.
FUNCTIONS: Mapping[str, tuple[int, int]] = {
    "add": (1, 1),
    "mul": (1, 1),
    "relu": (1, 1),
    "relu6": (2, 1),
    "batchnorm": (2, 1),
    "silu": (5, 1),
    "tanh": (5, 1),
    "sigmoid": (4, 1),
    "gelu": (8, 1),
    "rmsnorm": (4, 2),
    "softmax": (5, 3),
    "layernorm": (7, 3),
    "pool": (1, 1),
    "mean": (1, 1),
    "reduce": (1, 1),
    "copy": (0, 1),
    "gather": (0, 1),
    "elementwise": (1, 1),
}

MULTIPLY_ACCUMULATE = "multiply_accumulate"


class Dim(msgspec.Struct, frozen=True, array_like=True):
    """A named iteration dim with its bound."""

    name: str
    bound: int


class Term(msgspec.Struct, frozen=True, array_like=True):
    """One ``coefficient x dim`` of an affine index (stride and dilation are coefficients)."""

    dim: str
    coefficient: int = 1


class Rank(msgspec.Struct, frozen=True, omit_defaults=True):
    """One index of a tensor: ``sum(coefficient x dim) + offset``."""

    #: The dims that move the index.
    terms: tuple[Term, ...]
    #: Constant added to the index; negative for leading padding.
    offset: int = 0
    #: True extent of the stored tensor along this rank; indices outside of ``[0, extent)`` read zero. None: as large as the dims reach.
    extent: int | None = None


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operand or the result of an operator."""

    #: ``Weights``, ``Inputs``, ``Outputs``, or any other unique name.
    name: str
    ranks: tuple[Rank, ...]
    #: Bits of one stored word.
    bits: int = 8
    #: True when the operand is a trained parameter, known before the run.
    static: bool = False

    @property
    def dims(self) -> frozenset[str]:
        """Names of the relevant dims."""
        return frozenset(term.dim for rank in self.ranks for term in rank.terms)


class Operator(msgspec.Struct, frozen=True, omit_defaults=True):
    """One computation as an einsum with affine indices. It has no name and no count: equal operators are equal."""

    dims: tuple[Dim, ...]
    tensors: tuple[Tensor, ...]
    #: Name of the tensor that is written.
    output: str = OUTPUTS
    #: Bits of one partial sum of the written tensor while it accumulates.
    accumulator_bits: int = 32
    #: ``multiply_accumulate``, or a key of `FUNCTIONS`.
    function: str = MULTIPLY_ACCUMULATE
    #: Dims that a non-linear function reduces over (softmax, normalizations).
    reduced_dims: tuple[str, ...] = ()
    #: Bits of one word of the trained vector that a contraction adds to its result; 0: it has none.
    bias_bits: int = 0

    def __post_init__(self) -> None:
        names = [dim.name for dim in self.dims]
        if len(set(names)) != len(names):
            raise InvalidOperator(f"dims: {names} names a dim twice")
        for dim in self.dims:
            if dim.bound < 1:
                raise InvalidOperator(f"dims.{dim.name}: bound is {dim.bound}, expected an integer >= 1")
        if self.function != MULTIPLY_ACCUMULATE and self.function not in FUNCTIONS:
            expected = ", ".join([MULTIPLY_ACCUMULATE, *FUNCTIONS])
            raise InvalidOperator(f"function: {self.function!r} is unknown, expected one of {expected}")
        tensors = [tensor.name for tensor in self.tensors]
        if len(set(tensors)) != len(tensors):
            raise InvalidOperator(f"tensors: {tensors} names a tensor twice")
        if self.output not in tensors:
            raise InvalidOperator(f"output: {self.output!r} is not one of the tensors {tensors}")
        if self.accumulator_bits < 1:
            raise InvalidOperator(f"accumulator_bits: {self.accumulator_bits}, expected >= 1")
        if self.bias_bits < 0 or (self.bias_bits and not self.is_contraction):
            raise InvalidOperator(
                f"bias_bits: {self.bias_bits} for {self.function}, expected >= 0, and 0 unless it is {MULTIPLY_ACCUMULATE}"
            )
        for unknown in sorted(set(self.reduced_dims) - set(names)):
            raise InvalidOperator(f"reduced_dims: {unknown!r} is not one of the dims {names}")
        for tensor in self.tensors:
            if tensor.bits < 1:
                raise InvalidOperator(f"tensors.{tensor.name}.bits: {tensor.bits}, expected >= 1")
            for rank in tensor.ranks:
                if rank.extent is not None and rank.extent < 1:
                    raise InvalidOperator(f"tensors.{tensor.name}: extent {rank.extent}, expected >= 1 (is the padding too large?)")
                for term in rank.terms:
                    if term.dim not in names:
                        raise InvalidOperator(f"tensors.{tensor.name}: dim {term.dim!r} is not one of {names}")
                    if term.coefficient < 1:
                        raise InvalidOperator(f"tensors.{tensor.name}: coefficient {term.coefficient} of {term.dim}, expected >= 1")

    @property
    def bounds(self) -> dict[str, int]:
        """Bound of each dim."""
        return {dim.name: dim.bound for dim in self.dims}

    @property
    def is_contraction(self) -> bool:
        """True for multiply-accumulate operators."""
        return self.function == MULTIPLY_ACCUMULATE

    @property
    def iterations(self) -> int:
        """Points of the iteration space."""
        return math.prod(dim.bound for dim in self.dims)

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for a non-linear operator."""
        return self.iterations if self.is_contraction else 0

    @property
    def flops(self) -> int:
        """Floating-point (or integer) operations: two per MAC, else `FUNCTIONS` per element."""
        return 2 * self.macs if self.is_contraction else FUNCTIONS[self.function][0] * self.iterations

    @property
    def passes(self) -> int:
        """Passes over the input that the function needs when nothing is kept."""
        return 1 if self.is_contraction else FUNCTIONS[self.function][1]

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`; KeyError when there is none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Stored extents of a tensor in words, one per rank (true extents where stated)."""
        bounds = self.bounds
        shape = []
        for rank in self.tensor(name).ranks:
            reach = 1 + sum(term.coefficient * (bounds[term.dim] - 1) for term in rank.terms)
            shape.append(reach if rank.extent is None else rank.extent)
        return tuple(shape)

    def elements(self, name: str) -> int:
        """Stored words of a tensor."""
        return math.prod(self.shape(name))

    @property
    def bias_words(self) -> int:
        """Words of the bias: one per index of the dims that the result shares with a static operand (K, and G); 0 without bias."""
        if not self.bias_bits:
            return 0
        static = {dim for tensor in self.tensors if tensor.static for dim in tensor.dims}
        return math.prod(self.bounds[dim] for dim in static & self.tensor(self.output).dims)

    @property
    def read_bytes(self) -> int:
        """Compulsory bytes read: every operand once, the bias too."""
        operands = sum(_bytes(self.elements(t.name), t.bits) for t in self.tensors if t.name != self.output)
        return operands + _bytes(self.bias_words, self.bias_bits)

    @property
    def write_bytes(self) -> int:
        """Compulsory bytes written: the result once."""
        return _bytes(self.elements(self.output), self.tensor(self.output).bits)

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per compulsory byte."""
        return self.flops / (self.read_bytes + self.write_bytes)


def _bytes(words: int, bits: int) -> int:
    return -(-words * bits // 8)


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One occurrence of an operator in a workload."""

    #: Unique within the workload.
    id: str
    #: Index into `Workload.operators`.
    operator: int
    #: Dotted path of the module it came from.
    module: str = ""
    #: Operator tensor name -> workload tensor name.
    tensors: dict[str, str] = {}


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor between nodes."""

    name: str
    shape: tuple[int, ...]
    bits: int = 8
    #: Node that writes it; empty for a workload input or a parameter.
    producer: str = ""
    consumers: tuple[str, ...] = ()
    #: Which rank of the producer's result each axis of `shape` is; empty when they agree in order.
    axes: tuple[int, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """A distinct operator with how often, and where, it occurs: a view of a workload, never stored."""

    index: int
    operator: Operator
    count: int
    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The module (or id) of its first occurrence."""
        return self.nodes[0].module or self.nodes[0].id


class Workload(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model as a graph of operators. Each distinct operator is stored once; nodes refer to it."""

    name: str
    operators: tuple[Operator, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    #: Trained parameters, in words.
    parameters: int = 0
    #: Where it came from and under which convention it was counted.
    source: str = ""

    def __post_init__(self) -> None:
        ids = {node.id for node in self.nodes}
        if len(ids) != len(self.nodes):
            raise InvalidOperator("nodes: two nodes have one id")
        for node in self.nodes:
            if not 0 <= node.operator < len(self.operators):
                raise InvalidOperator(f"nodes.{node.id}.operator: {node.operator}, expected an index below {len(self.operators)}")
        for edge in self.edges:
            for end in (edge.producer, *edge.consumers):
                if end and end not in ids:
                    raise InvalidOperator(f"edges.{edge.name}: node {end!r} does not exist")

    @classmethod
    def build(
        cls,
        name: str,
        items: Iterable[tuple[str, Operator]],
        *,
        edges: Iterable[Edge] = (),
        parameters: int = 0,
        source: str = "",
    ) -> Workload:
        """Build from (module, operator) pairs in execution order; equal operators are stored once."""
        index: dict[Operator, int] = {}
        nodes: dict[str, Node] = {}
        repeats: dict[str, int] = {}
        for module, operator in items:
            at = index.setdefault(operator, len(index))
            node = module
            while node in nodes:
                repeats[module] = repeats.get(module, 0) + 1
                node = f"{module}#{repeats[module]}"
            nodes[node] = Node(id=node, operator=at, module=module)
        return cls(name=name, operators=tuple(index), nodes=tuple(nodes.values()), edges=tuple(edges), parameters=parameters, source=source)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The distinct operators with their counts, in order of first occurrence."""
        groups: dict[int, list[Node]] = {}
        for node in self.nodes:
            groups.setdefault(node.operator, []).append(node)
        return tuple(Task(index, self.operators[index], len(nodes), tuple(nodes)) for index, nodes in groups.items())

    def nameless(self) -> Workload:
        """The same graph with numbers for names: equal for workloads that differ in nothing but names."""
        ids = {node.id: str(at) for at, node in enumerate(self.nodes)} | {"": ""}
        edges = {edge.name: str(at) for at, edge in enumerate(self.edges)}
        nodes = (
            msgspec.structs.replace(
                node, id=ids[node.id], module="", tensors={tensor: edges.get(edge, "") for tensor, edge in node.tensors.items()}
            )
            for node in self.nodes
        )
        ends = (
            msgspec.structs.replace(
                edge, name=edges[edge.name], producer=ids[edge.producer], consumers=tuple(ids[each] for each in edge.consumers)
            )
            for edge in self.edges
        )
        return msgspec.structs.replace(self, name="", nodes=tuple(nodes), edges=tuple(ends), source="")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole workload."""
        return sum(task.count * task.operator.macs for task in self.tasks)


def _rank(*terms: tuple[str, int] | str, offset: int = 0, extent: int | None = None) -> Rank:
    return Rank(tuple(Term(t) if isinstance(t, str) else Term(*t) for t in terms), offset, extent)


def _window(out: str, tap: str, stride: int, dilation: int, padding: int, bounds: Mapping[str, int], extent: int | None) -> Rank:
    if extent is None and padding:
        extent = (bounds[out] - 1) * stride + (bounds[tap] - 1) * dilation + 1 - 2 * padding
    return _rank((out, stride), (tap, dilation), offset=-padding, extent=extent)


def conv2d(
    *,
    r: int,
    s: int,
    p: int,
    q: int,
    c: int,
    k: int,
    n: int = 1,
    g: int = 1,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    extent: tuple[int | None, int | None] = (None, None),
    bits: int = 8,
    accumulator_bits: int = 32,
) -> Operator:
    """A convolution. Pairs are (width, height): width goes with P and R, height with Q and S.

    `c` and `k` are channels *per group*; with `g` > 1 the group dim touches all tensors (grouped convolution).
    `extent` states the true input size where it differs from what the outputs and padding imply.
    """
    bounds = {"R": r, "S": s, "P": p, "Q": q, "C": c, "K": k, "N": n}
    group: tuple[Rank, ...] = ()
    if g > 1:
        bounds["G"] = g
        group = (_rank("G"),)
    wide = _window("P", "R", stride[0], dilation[0], padding[0], bounds, extent[0])
    high = _window("Q", "S", stride[1], dilation[1], padding[1], bounds, extent[1])
    return Operator(
        dims=tuple(Dim(*item) for item in bounds.items()),
        tensors=(
            Tensor(WEIGHTS, (*group, _rank("C"), _rank("K"), _rank("R"), _rank("S")), bits, static=True),
            Tensor(INPUTS, (_rank("N"), *group, _rank("C"), high, wide), bits),
            Tensor(OUTPUTS, (_rank("N"), *group, _rank("K"), _rank("Q"), _rank("P")), bits),
        ),
        accumulator_bits=accumulator_bits,
    )


def depthwise(
    *,
    r: int,
    s: int,
    p: int,
    q: int,
    g: int,
    n: int = 1,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    extent: tuple[int | None, int | None] = (None, None),
    bits: int = 8,
    accumulator_bits: int = 32,
) -> Operator:
    """A depthwise convolution over `g` channels (the dim G touches all tensors)."""
    bounds = {"R": r, "S": s, "P": p, "Q": q, "G": g, "N": n}
    wide = _window("P", "R", stride[0], dilation[0], padding[0], bounds, extent[0])
    high = _window("Q", "S", stride[1], dilation[1], padding[1], bounds, extent[1])
    return Operator(
        dims=tuple(Dim(*item) for item in bounds.items()),
        tensors=(
            Tensor(WEIGHTS, (_rank("G"), _rank("R"), _rank("S")), bits, static=True),
            Tensor(INPUTS, (_rank("N"), _rank("G"), high, wide), bits),
            Tensor(OUTPUTS, (_rank("N"), _rank("G"), _rank("Q"), _rank("P")), bits),
        ),
        accumulator_bits=accumulator_bits,
    )


def matmul(*, p: int, c: int, k: int, static: bool = True, bits: int = 8, accumulator_bits: int = 32) -> Operator:
    """``Outputs[p, k] = sum over c of Inputs[p, c] * Weights[c, k]``."""
    return Operator(
        dims=(Dim("P", p), Dim("C", c), Dim("K", k)),
        tensors=(
            Tensor(WEIGHTS, (_rank("C"), _rank("K")), bits, static=static),
            Tensor(INPUTS, (_rank("P"), _rank("C")), bits),
            Tensor(OUTPUTS, (_rank("P"), _rank("K")), bits),
        ),
        accumulator_bits=accumulator_bits,
    )


def batched_matmul(*, g: int, p: int, c: int, k: int, h: int = 1, bits: int = 8, accumulator_bits: int = 32) -> Operator:
    """`g` independent products (attention heads); with `h` > 1, `h` query heads share each second operand (GQA)."""
    shared = (Dim("H", h),) if h > 1 else ()
    ranks = (_rank("H"),) if h > 1 else ()
    return Operator(
        dims=(Dim("G", g), *shared, Dim("P", p), Dim("C", c), Dim("K", k)),
        tensors=(
            Tensor(WEIGHTS, (_rank("G"), _rank("C"), _rank("K")), bits),
            Tensor(INPUTS, (_rank("G"), *ranks, _rank("P"), _rank("C")), bits),
            Tensor(OUTPUTS, (_rank("G"), *ranks, _rank("P"), _rank("K")), bits),
        ),
        accumulator_bits=accumulator_bits,
    )


def conv_transpose(
    *,
    r: int,
    s: int,
    p: int,
    q: int,
    c: int,
    k: int,
    n: int = 1,
    stride: tuple[int, int],
    bits: int = 8,
    accumulator_bits: int = 32,
) -> tuple[Operator, ...]:
    """A transposed convolution as one dense convolution per stride phase.

    `p`, `q` are the *input* sizes. Phase ``(i, j)`` computes the outputs congruent to it and uses the taps
    ``i, i + stride, ...``; phases without taps are left out.
    """
    phases = []
    for i in range(stride[0]):
        for j in range(stride[1]):
            taps = (-(-(r - i) // stride[0]), -(-(s - j) // stride[1]))
            if min(taps) < 1:
                continue
            phases.append(
                conv2d(
                    r=taps[0],
                    s=taps[1],
                    p=p + taps[0] - 1,
                    q=q + taps[1] - 1,
                    c=c,
                    k=k,
                    n=n,
                    padding=(taps[0] - 1, taps[1] - 1),
                    bits=bits,
                    accumulator_bits=accumulator_bits,
                )
            )
    return tuple(phases)


def elementwise(function: str, shape: Mapping[str, int], *, operands: int = 1, reduced: tuple[str, ...] = (), bits: int = 8) -> Operator:
    """A non-linear operator over named dims: `operands` inputs of that shape, one output.

    The first operand is ``Inputs``, further ones ``Inputs2``, ``Inputs3``, ...
    """
    ranks = tuple(_rank(dim) for dim in shape)
    inputs = tuple(Tensor(INPUTS if i == 0 else f"{INPUTS}{i + 1}", ranks, bits) for i in range(operands))
    return Operator(
        dims=tuple(Dim(*item) for item in shape.items()),
        tensors=(*inputs, Tensor(OUTPUTS, ranks, bits)),
        function=function,
        reduced_dims=reduced,
    )
