"""A workload while it grows: nodes in execution order, and the tensors between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.protocol.workload import Edge, Node, Operator, Workload


class Graph:
    """Collects nodes and edges. Tensors are known by the name of their edge."""

    def __init__(self, name: str, bits: int) -> None:
        self.name = name
        #: Bits of a word of every tensor that does not say otherwise.
        self.bits = bits
        self._operators: dict[Operator, int] = {}
        self._nodes: list[Node] = []
        self._uses: dict[str, int] = {}
        self._edges: dict[str, Edge] = {}
        self._consumers: dict[str, list[str]] = {}
        self._parameters: dict[str, int] = {}

    def input(self, name: str, shape: tuple[int, ...], bits: int | None = None) -> str:
        """A tensor that comes from outside: data, or a cache."""
        self._edge(Edge(name, shape, self.bits if bits is None else bits))
        return name

    def parameter(self, name: str, *shape: int) -> str:
        """A trained tensor; naming it again means the same one (tied weights)."""
        if name not in self._edges:
            self._edge(Edge(name, shape, self.bits))
            words = 1
            for extent in shape:
                words *= extent
            self._parameters[name] = words
        return name

    def add(
        self,
        module: str,
        operator: Operator,
        operands: Mapping[str, str],
        *,
        also: Sequence[str] = (),
        shape: tuple[int, ...] = (),
        axes: tuple[int, ...] = (),
    ) -> str:
        """Append a node and return the name of its result.

        `operands` binds operator tensors to edges; `also` names edges that it reads without an operator tensor (a bias).
        `shape` and `axes` say how the consumers see the result, where that is not its own shape: each axis is (a factor
        of) one rank of the result.
        """
        stem = module or operator.function  # the outermost module has no name
        repeat = self._uses[stem] = self._uses.get(stem, -1) + 1
        node = f"{stem}#{repeat}" if repeat else stem
        for name in (*operands.values(), *also):
            if node not in self._consumers[name]:
                self._consumers[name].append(node)
        result = f"{node}.out"
        bits = operator.tensor(operator.output).bits
        self._edge(Edge(result, shape or operator.shape(operator.output), bits, producer=node, axes=axes))
        index = self._operators.setdefault(operator, len(self._operators))
        self._nodes.append(Node(node, index, module, {**operands, operator.output: result}))
        return result

    def build(self, source: str) -> Workload:
        """The finished workload."""
        edges = tuple(
            Edge(edge.name, edge.shape, edge.bits, edge.producer, tuple(self._consumers[edge.name]), edge.axes)
            for edge in self._edges.values()
        )
        return Workload(self.name, tuple(self._operators), tuple(self._nodes), edges, sum(self._parameters.values()), source)

    def _edge(self, edge: Edge) -> None:
        self._edges[edge.name] = edge
        self._consumers[edge.name] = []
