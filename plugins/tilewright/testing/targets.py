"""What every target must do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tilewright import loopnest as ln
from tilewright.protocol import codec, registry
from tilewright.protocol.architecture import Architecture, Constraints, DesignSpace
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Target

from . import samples


class TargetConformance:
    """Subclass it and set `name`."""

    #: Entry-point name of the target.
    name: ClassVar[str]

    @pytest.fixture
    def target(self) -> Target:
        """The plugin."""
        loaded: Target = registry.load("targets", self.name)
        return loaded

    def test_travels(self, target: Target) -> None:
        """Architecture, design space and constraints survive the wire."""
        for value, kind in (
            (target.architecture(), Architecture),
            (target.design_space(), DesignSpace),
            (target.constraints(), Constraints),
        ):
            assert codec.decode(codec.encode(value), kind) == value

    def test_defaults_are_the_default(self, target: Target) -> None:
        """Saying every default changes nothing, and defaults lie within their limits."""
        parameters = target.design_space().parameters
        assert target.architecture(**{p.name: p.default for p in parameters}) == target.architecture()
        assert all(p.low <= p.default <= p.high for p in parameters)

    def test_parameters_do_something(self, target: Target) -> None:
        """Both ends of each parameter build, and differ."""
        for parameter in target.design_space().parameters:
            low, high = target.architecture(**{parameter.name: parameter.low}), target.architecture(**{parameter.name: parameter.high})
            assert low != high or parameter.low == parameter.high

    def test_unknown_parameter_is_refused(self, target: Target) -> None:
        """A parameter it does not have is an error that names it."""
        with pytest.raises(InvalidInput, match="no_such_parameter"):
            target.architecture(no_such_parameter=3)

    def test_constraints_name_its_levels(self, target: Target) -> None:
        """Constraints speak of levels that exist."""
        assert {limit.level for limit in target.constraints().levels} <= set(target.architecture().level_names)

    def test_can_run_something_at_a_price(self, target: Target) -> None:
        """A matrix product with all its loops outermost is valid, takes time and costs energy at every level that moves words."""
        operator, architecture = samples.OPERATORS["matmul"], target.architecture()
        cost = ln.cost(ln.Problem(operator, architecture, target.constraints()), samples.outermost(operator, architecture))
        assert cost.cycles > 0
        assert cost.energy_pj > 0

    def test_outermost_level_holds_everything(self, target: Target) -> None:
        """The last level is unlimited and keeps all tensors."""
        last = target.architecture().levels[-1]
        assert last.capacity_bits is None
        assert set(samples.TENSORS) <= set(last.keeps)
