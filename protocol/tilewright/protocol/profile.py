"""What a profile counts: operations and bytes per operator and class under a named convention, and machines to place them on.

A *class* says what role an operator has in its model: ``CLASSES``. A *convention* (a plugin) says how many operations and
bytes an operator is. A *machine* is peak rates and memories with bandwidths: an accelerator's architecture, or a described
CPU or GPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import msgspec

from .errors import InvalidInput
from .workload import INPUTS, MULTIPLY_ACCUMULATE, WEIGHTS, Node, Operator, Workload

if TYPE_CHECKING:
    from .plugin import Options

PROJECTION, ATTENTION, FEED_FORWARD, CONVOLUTION, LINEAR = (
    "attention projections",
    "attention products",
    "feed-forward",
    "convolution",
    "linear",
)
NORMALIZATION, ACTIVATION, SOFTMAX, ELEMENTWISE, MOVEMENT = "normalization", "activation", "softmax", "element-wise", "data movement"
#: Most settings of one profile.
MOST_SETTINGS = 256
#: Roles of operators, in the order in which they are shown.
CLASSES = (PROJECTION, ATTENTION, FEED_FORWARD, CONVOLUTION, LINEAR, SOFTMAX, NORMALIZATION, ACTIVATION, ELEMENTWISE, MOVEMENT)
_FUNCTIONS = {
    "softmax": SOFTMAX,
    **dict.fromkeys(("layernorm", "rmsnorm", "batchnorm"), NORMALIZATION),
    **dict.fromkeys(("relu", "relu6", "silu", "tanh", "sigmoid", "gelu"), ACTIVATION),
    **dict.fromkeys(("copy", "gather"), MOVEMENT),
}

Rate = Annotated[float, msgspec.Meta(gt=0)]


class Counted(msgspec.Struct, frozen=True):
    """One node, counted under some convention."""

    #: Id of the node.
    node: str
    #: One of `CLASSES`, or the convention's own word.
    kind: str
    #: Operations; a multiply-accumulate is two, unless the convention says otherwise.
    flops: float
    read_bytes: float
    write_bytes: float
    #: Bytes that cross the outer memory's bus in the convention's own model of a machine; None: it has none.
    external_bytes: float | None = None
    #: Cycles in that model.
    cycles: float | None = None

    @property
    def bytes(self) -> float:
        """Bytes moved when every operand is read once and every result written once."""
        return self.read_bytes + self.write_bytes


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """One memory of a machine; bandwidths over all its copies."""

    name: str
    bytes_per_second: Rate
    #: None: as large as anything.
    capacity_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None


class Peak(msgspec.Struct, frozen=True):
    """How fast matrix products are on operands of one width."""

    bits: Annotated[int, msgspec.Meta(ge=1)]
    #: A multiply-accumulate is two operations.
    ops_per_second: Rate


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A processor as its data sheet describes it."""

    name: str
    peaks: tuple[Peak, ...]
    #: Innermost first.
    memories: tuple[Memory, ...]
    #: Operations per second of everything else; None: unknown, so that only memory binds there.
    vector_ops_per_second: Rate | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not self.peaks or not self.memories:
            raise InvalidInput(f"machine {self.name!r}: expected at least one of peaks and one of memories")

    def peak(self, bits: int) -> float:
        """Operations per second on operands of `bits`: the rate of the narrowest width that holds them, else of the widest."""
        wide = [peak for peak in self.peaks if peak.bits >= bits]
        return min(wide or [max(self.peaks, key=lambda peak: peak.bits)], key=lambda peak: peak.bits).ops_per_second


class Prediction(msgspec.Struct, frozen=True):
    """What one occurrence of an operator takes on a machine at the roofline."""

    machine: str
    seconds: float
    #: ``compute``, or the name of the memory that binds.
    bound_by: str


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """Equal operators of one class: figures of one occurrence."""

    name: str
    kind: str
    function: str
    #: Dims that are not 1, e.g. ``P128 C64 K128``.
    shape: str
    count: int
    flops: float
    read_bytes: float
    write_bytes: float
    #: Bytes between the outer memory and one of `Analysis.capacity_bytes`; None: not asked for, or not known.
    tiled_bytes: float | None = None
    #: As in `Counted`.
    external_bytes: float | None = None
    cycles: float | None = None
    predictions: tuple[Prediction, ...] = ()

    @property
    def bytes(self) -> float:
        """Bytes moved by one occurrence."""
        return self.read_bytes + self.write_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


class Layer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Equal parts of a model (its outermost numbered modules, and modules outside of those): figures of one occurrence."""

    #: Module of the first.
    name: str
    count: int
    flops: float
    read_bytes: float
    write_bytes: float
    #: Seconds of all its operators one after another, and what binds for most of them.
    predictions: tuple[Prediction, ...] = ()

    @property
    def bytes(self) -> float:
        """Bytes moved by one occurrence."""
        return self.read_bytes + self.write_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """A workload at one setting."""

    #: What was varied, e.g. ``{"seq": 128}``.
    setting: dict[str, int]
    rows: tuple[Row, ...]
    #: ``forward``, or ``generation``: the sum over all steps.
    phase: str = "forward"
    #: Tokens made, in a generation.
    tokens: int = 0
    #: In the order of the model; empty where its modules have no names.
    layers: tuple[Layer, ...] = ()


class Measured(msgspec.Struct, frozen=True):
    """Calls of one operator on inputs of one shape, as they were measured."""

    #: The operator and its inputs' shapes, in the words of the library that ran it.
    name: str
    calls: int
    #: Processor time of all calls.
    seconds: float
    #: Operations of all calls, as the library counts them; 0: it does not.
    flops: float


class Measurement(msgspec.Struct, frozen=True):
    """A real module on a real CPU, on one thread."""

    name: str
    #: Median processor time of a run.
    seconds: float
    #: Standard deviation over mean.
    spread: float
    repeats: int
    #: Load average of the machine meanwhile.
    load: float
    #: The largest first.
    operators: tuple[Measured, ...]


class Given(msgspec.Struct, frozen=True):
    """A workload that the client loaded itself, at one setting; for a generation, one of its passes (``seq`` or ``ctx`` says which)."""

    setting: dict[str, int]
    workload: Workload


class Analysis(msgspec.Struct, frozen=True, omit_defaults=True):
    """What else to say of a model than its operators on the target."""

    convention: str = "standard"
    convention_options: dict[str, bool | int | float | str] = {}
    #: Frontend option -> values that it takes; all combinations are profiled.
    sweep: dict[str, tuple[int, ...]] = {}
    #: Tokens that a decoder makes from its prompt of ``seq`` tokens (no ``seq``: from an empty one); 0: one forward pass.
    generate: Annotated[int, msgspec.Meta(ge=0)] = 0
    machines: tuple[Machine, ...] = ()
    #: On-chip memory for which traffic is worked out too; 0: none.
    capacity_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: The workloads themselves, where the client loaded them.
    given: tuple[Given, ...] = ()

    def asked(self, options: Options, setting: Mapping[str, int], *, any_length: bool) -> Options:
        """The frontend's options at a setting; where it may have `any_length`, a model gets as many positions as that takes."""
        together: Options = {**options, **setting}
        lengths = [value for name in ("seq", "ctx") if isinstance(value := together.get(name), int)]
        if any_length and (lengths or self.generate) and "positions" not in together:
            together["positions"] = max(lengths, default=0) + self.generate
        return together

    def settings(self) -> list[dict[str, int]]:
        """Everything that is profiled; one setting without values where nothing is swept. `InvalidInput` for none, or too many."""
        combinations = math.prod(len(values) for values in self.sweep.values())
        if not 1 <= combinations <= MOST_SETTINGS:
            raise InvalidInput(f"sweep: {combinations} combinations, expected 1 to {MOST_SETTINGS}")
        return [dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values())]


class Producers:
    """Who makes what each node reads, from the edges of a workload."""

    def __init__(self, workload: Workload) -> None:
        self._nodes = {node.id: node for node in workload.nodes}
        self._operators = workload.operators
        self._makers = {edge.name: edge.producer for edge in workload.edges if edge.producer}

    def operator(self, node: Node) -> Operator:
        """Its operator."""
        return self._operators[node.operator]

    def contraction(self, node: Node, tensor: str) -> Node | None:
        """The contraction that an operand comes from, through any number of other operators; None when there is none."""
        seen: set[str] = set()
        todo = [node.tensors.get(tensor, "")]
        while todo:
            maker = self._nodes.get(self._makers.get(todo.pop(), ""))
            if maker is None or maker.id in seen:
                continue
            seen.add(maker.id)
            if self.operator(maker).is_contraction:
                return maker
            todo += [name for each, name in maker.tensors.items() if each != self.operator(maker).output]
        return None

    def function(self, node: Node, tensor: str) -> str:
        """Function of the operator that makes an operand; empty when nothing does."""
        maker = self._nodes.get(self._makers.get(node.tensors.get(tensor, ""), ""))
        return "" if maker is None else self.operator(maker).function


def classify(workload: Workload) -> dict[str, str]:
    """Node id -> class.

    Products of two activations are attention; the products with weights that feed them, or that their results go into, are
    its projections; other products with weights are feed-forward inside of numbered layers and linear outside. Without
    edges projections cannot be told from other products.
    """
    makers = Producers(workload)
    found: dict[str, str] = {}
    for node in workload.nodes:
        operator = workload.operators[node.operator]
        found[node.id] = _kind(operator, node)
        if found[node.id] == ATTENTION:
            for tensor in (INPUTS, WEIGHTS):
                maker = makers.contraction(node, tensor)
                if maker is not None and found[maker.id] != ATTENTION:
                    found[maker.id] = PROJECTION
        elif found[node.id] in (FEED_FORWARD, LINEAR):
            maker = makers.contraction(node, INPUTS)
            direct = makers.function(node, INPUTS) in ("", MULTIPLY_ACCUMULATE, "copy")
            if maker is not None and found[maker.id] == ATTENTION and direct:
                found[node.id] = PROJECTION
    return found


def _kind(operator: Operator, node: Node) -> str:
    if not operator.is_contraction:
        return _FUNCTIONS.get(operator.function, ELEMENTWISE)
    if not any(tensor.static for tensor in operator.tensors):
        return ATTENTION
    if "R" in operator.bounds:
        return CONVOLUTION
    return FEED_FORWARD if numbered(node.module) else LINEAR


def numbered(module: str) -> bool:
    """True inside of a repeated layer: a component of the module's path is a number."""
    return any(part.isdigit() for part in module.split("."))


def shape(operator: Operator) -> str:
    """The dims of an operator that are not 1, e.g. ``P128 C64 K128``."""
    return " ".join(f"{dim.name}{dim.bound}" for dim in operator.dims if dim.bound > 1) or "scalar"


def by_class(rows: Iterable[Row]) -> dict[str, tuple[float, float]]:
    """Class -> (operations, bytes), occurrences counted, in the order of `CLASSES`."""
    sums: dict[str, tuple[float, float]] = {}
    for row in rows:
        flops, moved = sums.get(row.kind, (0.0, 0.0))
        sums[row.kind] = (flops + row.count * row.flops, moved + row.count * row.bytes)
    order = {kind: at for at, kind in enumerate(CLASSES)}
    return dict(sorted(sums.items(), key=lambda item: order.get(item[0], len(order))))
