"""What every emitter must do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tilewright.protocol import codec, registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Kernel
from tilewright.protocol.plugin import Budget, EmitRequest, Emitter, Options

from . import samples


class EmitterConformance:
    """Subclass it and set `name`."""

    #: Entry-point name of the emitter.
    name: ClassVar[str]
    options: ClassVar[Options] = {}
    #: Name in `samples.OPERATORS` that it can emit.
    operator: ClassVar[str] = "matmul"

    @pytest.fixture
    def emitter(self) -> Emitter:
        """The plugin."""
        loaded: Emitter = registry.load("emitters", self.name)
        return loaded

    def emit(self, emitter: Emitter, target: str) -> Kernel:
        """One kernel."""
        ctx = HostContext("emitters", self.name, Budget(), granted=(f"targets:{target}",))
        return emitter.emit(EmitRequest(samples.OPERATORS[self.operator], target, options=self.options), ctx)

    def test_emits_for_each_of_its_targets(self, emitter: Emitter) -> None:
        """Source, header and test for every target it names; not verified only with a reason."""
        assert emitter.targets
        for target in emitter.targets:
            kernel = self.emit(emitter, target)
            assert kernel.name in kernel.source
            assert kernel.name in kernel.header
            assert kernel.test
            assert kernel.verification.status == "verified" or kernel.verification.reason
            assert kernel.operator == samples.OPERATORS[self.operator]

    def test_same_request_same_kernel(self, emitter: Emitter) -> None:
        """No dates, paths or timings in the answer; and it survives the wire."""
        target = emitter.targets[0]
        kernel = self.emit(emitter, target)
        assert kernel == self.emit(emitter, target)
        assert codec.decode(codec.encode(kernel), Kernel) == kernel

    def test_other_targets_are_refused(self, emitter: Emitter) -> None:
        """A target it does not emit for is an error that names it."""
        with pytest.raises(InvalidInput, match="no-such-target"):
            self.emit(emitter, "no-such-target")
