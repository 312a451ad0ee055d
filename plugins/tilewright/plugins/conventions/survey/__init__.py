"""How Kim et al., "Full Stack Optimization of Transformer Inference: a Survey" (arXiv 2302.14017, 2023) counts, and its latency model.

Section 2 of the paper: a word is one byte, and every operand is read and every result written once per operation. A product
with weights is two operations per multiply-accumulate; a product of activations is `k` multiplications and `k - 1` additions
per result. Only the repeated layers of a transformer count: no embedding, no head, nothing that only moves data. The
coefficients of the non-linear operators are not printed; those used here reproduce every printed sum (`counts`). Section 3.3:
an accelerator of 16 x 16 multipliers whose time per operation is the larger of computing and moving (`latency`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import ATTENTION, LINEAR, MOVEMENT, PROJECTION, Counted, Producers, classify, numbered
from tilewright.protocol.workload import INPUTS, Workload

from .counts import Site, count
from .latency import external_bytes, latency


class Survey:
    """Convention ``survey``."""

    options: ClassVar[dict[str, str]] = {"fused": "batch normalizations and ReLUs are done where their convolution is (false)"}
    any_length: ClassVar[bool] = True

    def count(self, workload: Workload, options: Options) -> Sequence[Counted]:
        """The nodes that the survey counts, in its classes."""
        fused = options.get("fused", False)
        if not isinstance(fused, bool):
            raise InvalidInput(f"fused: {fused!r}, expected true or false")
        kinds = classify(workload)
        transformer = ATTENTION in kinds.values()
        producers = Producers(workload)
        activated = _activated(workload)
        counted = []
        for node in workload.nodes:
            kind = kinds[node.id]
            if transformer and (kind in (MOVEMENT, LINEAR) or not numbered(node.module)):
                continue
            operator = workload.operators[node.operator]
            mixes = producers.function(node, INPUTS) == "softmax"
            maker = producers.contraction(node, INPUTS) if kind == PROJECTION else None
            closes = maker is not None and kinds[maker.id] == ATTENTION
            site = Site(operator, kind, transformer, fused, mixes=mixes, activated=node.id in activated, closes=closes)
            name, flops, read, written = count(site)
            moved = external_bytes(site)
            counted.append(Counted(node.id, name, flops, read, written, moved, latency(site, moved)))
        return counted


def _activated(workload: Workload) -> set[str]:
    """Nodes whose result goes into an activation or a softmax."""
    operators = {node.id: workload.operators[node.operator] for node in workload.nodes}
    return {
        edge.producer
        for edge in workload.edges
        if edge.producer and any(operators[each].function in ("gelu", "relu", "silu", "tanh", "softmax") for each in edge.consumers)
    }
