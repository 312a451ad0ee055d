"""One model at one length, and at many."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, TilewrightError
from tilewright.protocol.workload import Workload

from .inputs import inputs
from .models import Plan, build, configure


class Tracer:
    """Builds and traces a model."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def workload(self) -> Workload:
        """One forward pass, recorded."""
        torch_frontend = registry.load("frontends", "torch")
        config, kind = configure(self.plan)
        model, bits = build(config, kind, self.plan.attention)
        with torch_frontend.fake():
            try:
                made = model.to_empty(device="cpu")
                made.tie_weights()
                keywords = inputs(made, self.plan)
            except TilewrightError:
                raise
            except Exception as error:  # whatever a model does not like
                raise InvalidInput(f"{self.plan.name}: cannot be given its inputs: {type(error).__name__}: {error}") from error
            workload: Workload = torch_frontend.trace(
                self.plan.name, made, (), keywords, bits=self.plan.bits or bits, source=self.plan.said
            )
        return workload


def many(plans: Sequence[Plan]) -> list[Workload]:
    """All of them."""
    return [Tracer(plan).workload() for plan in plans]
