"""One-loop gradient search over hardware and mappings, for any target. See README.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest


class Gradient:
    """The co-designer plugin; it needs the extra ``torch``. One step of one start counts as one evaluation per operator."""

    options: ClassVar[dict[str, str]] = {
        "space": "named: no loops at registers and scratchpad (default where the levels are Gemmini's); full: all that the target allows",
        "starts": "designs descended at once, at most (default 256; fewer where the budget asks for it)",
        "rounds": "roundings of one cycle (default 2)",
        "steps": "steps before each rounding (default 6)",
        "rate": "learning rate of logarithms (default 0.1)",
    }

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield every improvement; `InvalidInput` for an unknown limit or a wrong option."""
        try:
            import torch
        except ImportError:
            raise InvalidInput('codesigner gradient: torch is not installed; install the extra: pip install "tilewright[torch]"') from None
        from .search import Search
        from .settings import Settings

        search = Search(request, ctx, Settings.of(request.options))
        threads = torch.get_num_threads()
        # A step is many small operations: more threads only wait for each other.
        torch.set_num_threads(1)
        try:
            yield from search.run()
        finally:
            torch.set_num_threads(threads)
