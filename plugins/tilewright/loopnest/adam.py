"""Adam, written out: torch's own optimizers cost seconds of imports. Import this module only where torch is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Decay of the first and the second moment, and what keeps the quotient finite.
BETA, GAMMA, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; moments survive changes of the parameters."""

    def __init__(self, parameters: Sequence[torch.Tensor], rate: float) -> None:
        self.parameters, self.rate = list(parameters), rate
        self._first = [torch.zeros_like(each) for each in self.parameters]
        self._second = [torch.zeros_like(each) for each in self.parameters]
        self._steps = 0

    def step(self, loss: torch.Tensor) -> None:
        """One step against the gradient of a loss (a scalar)."""
        self._steps += 1
        gradients = torch.autograd.grad(loss, self.parameters)
        scale = self.rate / (1 - BETA**self._steps)
        for parameter, gradient, first, second in zip(self.parameters, gradients, self._first, self._second, strict=True):
            first.mul_(BETA).add_(gradient, alpha=1 - BETA)
            second.mul_(GAMMA).addcmul_(gradient, gradient, value=1 - GAMMA)
            spread = (second / (1 - GAMMA**self._steps)).sqrt_().add_(EPSILON)
            with torch.no_grad():
                parameter.addcdiv_(first, spread, value=-scale)
