"""What every frontend must do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tilewright.protocol import codec, registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Frontend, Options
from tilewright.protocol.workload import Workload


class FrontendConformance:
    """Subclass it, set `name`, and `sources` to what it should load (default: all of its `models`)."""

    #: Entry-point name of the frontend.
    name: ClassVar[str]
    sources: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Options] = {}

    @pytest.fixture
    def frontend(self) -> Frontend:
        """The plugin."""
        loaded: Frontend = registry.load("frontends", self.name)
        return loaded

    def workloads(self, frontend: Frontend) -> list[Workload]:
        """Every source, loaded."""
        return [frontend.load(source, self.options) for source in self.sources or frontend.models()]

    def test_loads_work(self, frontend: Frontend) -> None:
        """Each source has operators, and multiply-accumulates among them."""
        loaded = self.workloads(frontend)
        assert loaded
        assert all(workload.macs > 0 and workload.nodes for workload in loaded)

    def test_is_deterministic_and_travels(self, frontend: Frontend) -> None:
        """Loading twice gives the same workload, which survives the wire."""
        again = self.workloads(frontend)
        for workload, other in zip(self.workloads(frontend), again, strict=True):
            assert workload == other
            assert codec.decode(codec.encode(workload), Workload, limit=codec.MAX_VALUE) == workload

    def test_edges_join_nodes(self, frontend: Frontend) -> None:
        """Every tensor between nodes is written by one of them, or is an input of the workload."""
        for workload in self.workloads(frontend):
            order = {node.id: at for at, node in enumerate(workload.nodes)}
            for edge in workload.edges:
                assert all(not edge.producer or order[edge.producer] < order[consumer] for consumer in edge.consumers)

    def test_unknown_source_is_refused(self, frontend: Frontend) -> None:
        """A source that does not exist is an error that names it."""
        with pytest.raises(InvalidInput, match="no-such-model"):
            frontend.load("no-such-model", {})

    def test_describes_its_options(self, frontend: Frontend) -> None:
        """`options` maps each option to one line of help."""
        assert all(isinstance(text, str) and text for text in frontend.options.values())
