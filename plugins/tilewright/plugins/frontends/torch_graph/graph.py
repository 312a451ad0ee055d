"""A workload while it is recorded: nodes, and the tensors between them by the storage that holds them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tilewright.protocol.workload import Edge, Node, Operator, Workload

from .calls import Step


class Graph:
    """Collects nodes and edges. `Hashable` keys are storages; a storage that is written again is a new tensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._operators: dict[Operator, int] = {}
        self._nodes: list[Node] = []
        self._uses: dict[str, int] = {}
        self._edges: dict[str, Edge] = {}
        self._consumers: dict[str, dict[str, None]] = {}
        self._held: dict[Hashable, list[str]] = {}

    def outside(self, key: Hashable, name: str, shape: tuple[int, ...], bits: int) -> None:
        """A tensor that nothing here makes: a parameter, a buffer, an input."""
        free = name
        while free in self._edges:
            self._uses[name] = self._uses.get(name, 0) + 1
            free = f"{name}#{self._uses[name]}"
        self._edges[free] = Edge(free, shape, bits)
        self._consumers[free] = {}
        self._held[key] = [free]

    def knows(self, key: Hashable) -> bool:
        """True for a storage that was seen before."""
        return key in self._held

    def move(self, key: Hashable, source: Hashable) -> None:
        """A storage now holds what another one does."""
        self._held[key] = self._held[source]

    def add(self, module: str, steps: Sequence[Step], operands: Sequence[Hashable], result: Hashable) -> None:
        """Append the nodes of a call whose tensors have these keys. The last node makes the result; steps that do not feed
        a later one of the call are parts of it.
        """
        made: list[str] = []
        fed = {~index for step in steps for index in step.operands.values() if index < 0}
        for step in steps:
            names = {tensor: self._held[operands[index]][0] if index >= 0 else made[~index] for tensor, index in step.operands.items()}
            also = [each for index in step.also for each in self._held[operands[index]]]
            also += [each for index in step.operands.values() if index >= 0 for each in self._held[operands[index]][1:]]
            made.append(self._node(module, step.operator, names, also))
        self._held[result] = [name for at, name in enumerate(made) if at not in fed]

    def _node(self, module: str, operator: Operator, names: dict[str, str], also: Sequence[str]) -> str:
        stem = module or operator.function  # the outermost module has no name
        repeat = self._uses[stem] = self._uses.get(stem, -1) + 1
        node = f"{stem}#{repeat}" if repeat else stem
        for name in (*names.values(), *also):
            self._consumers[name][node] = None
        result = f"{node}.out"
        self._edges[result] = Edge(result, operator.shape(operator.output), operator.tensor(operator.output).bits, producer=node)
        self._consumers[result] = {}
        index = self._operators.setdefault(operator, len(self._operators))
        self._nodes.append(Node(node, index, module, {**names, operator.output: result}))
        return result

    def build(self, source: str, parameters: int) -> Workload:
        """The finished workload; tensors that nobody reads and nobody makes are left out."""
        edges = tuple(
            Edge(edge.name, edge.shape, edge.bits, edge.producer, tuple(self._consumers[edge.name]), edge.axes)
            for edge in self._edges.values()
            if edge.producer or self._consumers[edge.name]
        )
        return Workload(self.name, tuple(self._operators), tuple(self._nodes), edges, parameters, source)
