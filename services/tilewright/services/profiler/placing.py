"""One operator on the target and on described machines."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.profile import Counted, Machine, Prediction
from tilewright.protocol.workload import Operator

from .machines import predict
from .roofline import on_target


def predictions(operator: Operator, item: Counted, target: Architecture, machines: Sequence[Machine]) -> tuple[Prediction, ...]:
    """Time of one occurrence on the target, then on each machine."""
    return (on_target(operator, target), *(predict(operator, item.flops, item.bytes, each) for each in machines))
