"""Our sums for the models of the survey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tilewright.protocol import registry
from tilewright.protocol.plugin import Convention, Frontend, Options
from tilewright.protocol.profile import Counted
from tilewright.protocol.steps import summed
from tilewright.protocol.workload import INPUTS, Operator, Workload

#: The survey ignores how many positions a model has.
POSITIONS = 4096
#: The projections of a BERT layer, in the order of table 5, by the end of their module's name.
SITES = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


class Sums(NamedTuple):
    """Operations, bytes, bytes over the external bus, and cycles."""

    flops: float
    bytes: float
    external: float
    cycles: float

    def figure(self, column: str) -> float:
        """A printed column; KeyError for one that is unknown."""
        return {"GFLOPs": self.flops / 1e9, "GMOPs": self.bytes / 1e9, "FLOPs per byte": self.flops / self.bytes}[column]


def sums(items: Iterable[Counted]) -> Sums:
    """Sums over some nodes."""
    found = list(items)
    return Sums(
        sum(each.flops for each in found),
        sum(each.bytes for each in found),
        sum(each.external_bytes or 0.0 for each in found),
        sum(each.cycles or 0.0 for each in found),
    )


class Model:
    """Counts models, each once."""

    def __init__(self) -> None:
        self._zoo: Frontend = registry.load("frontends", "zoo")
        self._convention: Convention = registry.load("conventions", "survey")
        self._known: dict[tuple[Any, ...], dict[str, Sums]] = {}

    def sums(self, model: str, length: int, *, fused: bool = False, **options: int) -> dict[str, Sums]:
        """Sums by class and in ``total``; `length` 0: a model without one. GPT-2 generates `length` tokens."""
        key = (model, length, fused, *options.items())
        if key not in self._known:
            items = self._generate(model, length) if model == "gpt2" else self.count(model, length, fused=fused, **options)[1]
            kinds = dict.fromkeys(item.kind for item in items)
            self._known[key] = {kind: sums(item for item in items if item.kind == kind) for kind in kinds} | {"total": sums(items)}
        return self._known[key]

    def count(self, model: str, length: int, *, fused: bool = False, **options: int) -> tuple[Workload, Sequence[Counted]]:
        """A forward pass."""
        asked: Options = {**options, **({"seq": length, "positions": POSITIONS} if length else {})}
        workload = self._zoo.load(model, asked)
        return workload, self._convention.count(workload, {"fused": fused})

    def _generate(self, model: str, tokens: int) -> list[Counted]:
        def step(context: int) -> Sequence[Counted]:
            return self._convention.count(self._zoo.load(model, {"decode": True, "ctx": context, "positions": POSITIONS}), {})

        return summed(step, 1, tokens)

    def without_projection(self, model: str, length: int) -> Sums:
        """As the paper has it: the FLOPs and the time of one projection per layer are missing, its bytes are not."""
        total = self.sums(model, length)["total"]
        missing = sums(item for item in self.count(model, length)[1] if item.node.endswith("self.query"))
        return total._replace(flops=total.flops - missing.flops, cycles=total.cycles - missing.cycles)

    def stage(self, window: int, c: int, k: int, side: int) -> Sums:
        """The convolutions of ResNet-50 (v1) of one shape."""
        workload, items = self.count("resnet50-v1", 0)
        operators = {node.id: workload.operators[node.operator] for node in workload.nodes}

        def fits(operator: Operator) -> bool:
            bounds = operator.bounds
            wanted = {"R": window, "C": c, "K": k, "P": side}
            stride = operator.tensor(INPUTS).ranks[-1].terms[0].coefficient if operator.is_contraction and "R" in bounds else 0
            return stride == 1 and all(bounds.get(dim) == bound for dim, bound in wanted.items())

        return sums(item for item in items if fits(operators[item.node]) and "downsample" not in item.node)


def table5(ours: Model, length: int) -> list[float]:
    """FLOPs per external byte: queries with keys and values, QK, AV, W_out, W_1, W_2, all of the model."""
    _, items = ours.count("bert-base", length)
    layer = [item for item in items if item.node.startswith("encoder.layer.0.")]
    by_site = {site: [item for item in layer if item.node.endswith(f".{site}")] for site in SITES}
    by_site["output.dense"] = [item for item in by_site["output.dense"] if ".attention." not in item.node]
    products = [item for item in layer if item.kind == "act-to-act"]
    parts = [
        by_site["query"] + by_site["key"] + by_site["value"],
        products[:1],
        products[1:],
        *(by_site[site] for site in SITES[3:]),
        items,
    ]
    return [part.flops / part.external for part in map(sums, parts)]
