"""DOSA: gradient descent on the mappings of all layers, from which the hardware follows.

Source: Hong et al., "DOSA: Differentiable Model-Based One-Loop Search for DNN Accelerators", MICRO 2023, and its released code
(github.com/ucb-bar/dosa at a7a3239, BSD-2-Clause); written anew, all starts and layers in one torch program.

Seven starts (hardware drawn at random, mappings from CoSA) descend for 1490 steps each, rounded to legal mappings every 500 steps and at
the end; there each layer takes the best of its loop order at DRAM and three others. The start with the best exact cost wins.

Defects of the released code that are reproduced only with ``as_published``:

* with the strategies softmax and gumbel, repetitions of layers count twice in the loss;
* a tap loop innermost at DRAM multiplies the window by its factor even where that is below 1;
* multiply-accumulates are counted from the loops around the registers, which misses loops over R, S, C and K within them and a
  batch loop that is innermost;
* candidates of a start are compared on hardware with fractions of a KiB.

Counted as evaluations are every step, every order tried, CoSA's mappings, rejected starts, and the exact scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest


class Dosa:
    """The co-designer plugin, for targets with Gemmini's parameters; it needs the extra ``torch``.

    Intermediate designs are those with the lowest predicted objective; the last one is the method's answer.
    """

    uses: ClassVar[tuple[str, ...]] = ("mappers:cosa",)
    #: Help of each option; `settings` has the values.
    options: ClassVar[dict[str, str]] = {
        "strategy": "how loop orders at DRAM are chosen: iterative (default), softmax, gumbel, or none",
        "as_published": "true: keep what the released code does wrong (default false)",
        "starts": "start points (default 7)",
        "steps": "steps of each start (default 1490; fewer where the budget asks for it; 0: only choose orders)",
        "rounding": "steps between two roundings (default 500)",
        "rate": "learning rate (default: as published for the workload's name and the objective)",
    }

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield better and better designs; `InvalidInput` for what the method does not cover."""
        try:
            import torch
        except ImportError:
            raise InvalidInput('codesigner dosa: torch is not installed; install the extra: pip install "tilewright[torch]"') from None
        if request.objective not in ("edp", "energy"):
            raise InvalidInput(f"objective: {request.objective!r}, expected edp or energy (DOSA's loss has no other)")
        from .layers import Layers
        from .search import Search
        from .settings import Settings
        from .space import Space

        settings = Settings.of(request.options, request.objective, tuple(each.workload.name for each in request.workloads))
        space = Space(request, ctx.plugin("targets", request.target))
        threads = torch.get_num_threads()
        # A step is many small operations: more threads only wait for each other.
        torch.set_num_threads(1)
        try:
            seed = int(ctx.rng.bit_generator.seed_seq.entropy)
            yield from Search(Layers.of(request.workloads), space, request.objective, settings, seed, ctx).run()
        finally:
            torch.set_num_threads(threads)
