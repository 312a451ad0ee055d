"""The standard convention: two operations per multiply-accumulate, every operand read once and every result written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Counted, classify
from tilewright.protocol.workload import Workload


class Standard:
    """Convention ``standard``: every operator, with its own figures (`Operator.flops`, `read_bytes`, `write_bytes`)."""

    options: ClassVar[dict[str, str]] = {}
    any_length: ClassVar[bool] = False

    def count(self, workload: Workload, options: Options) -> Sequence[Counted]:
        """All nodes."""
        kinds = classify(workload)
        figures = [(float(each.flops), float(each.read_bytes), float(each.write_bytes)) for each in workload.operators]
        return [Counted(node.id, kinds[node.id], *figures[node.operator]) for node in workload.nodes]
