"""What may be said of the best answer of a search, from what the plugin claimed of all it found. A claim is checked, never copied."""

from __future__ import annotations

import math

import msgspec

from tilewright.protocol.cost import Claim

#: Largest relative gap at which a value counts as its own lower bound.
EQUAL = 1e-9


class ClaimState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a search's claims: the highest bound and its mapspace, whether anything claimed to be optimal, a proxy's claim."""

    bound: float | None = None
    mapspace: str = ""
    optimal: bool = False
    proxy: Claim | None = None


class Claims:
    """The claims of one search. A proven bound holds for everything in its mapspace, so the highest one counts."""

    def __init__(self, before: ClaimState = ClaimState()) -> None:  # noqa: B008 (immutable)
        self._bound = before.bound
        self._mapspace = before.mapspace
        self._optimal = before.optimal
        self._proxy = before.proxy

    @property
    def state(self) -> ClaimState:
        """To go on from, in another process."""
        return ClaimState(self._bound, self._mapspace, self._optimal, self._proxy)

    def add(self, claim: Claim, *, best: bool) -> None:
        """Take in the claim of a candidate; `best`: it is the best one from now on."""
        if best:
            self._proxy = claim if claim.kind == "proxy optimum" else None
        self._optimal = self._optimal or claim.kind == "optimal"
        if claim.lower_bound is not None and (self._bound is None or claim.lower_bound > self._bound):
            self._bound, self._mapspace = claim.lower_bound, claim.mapspace

    def gap(self, value: float) -> float:
        """``value / bound - 1``; infinite without a bound."""
        if self._bound is None:
            return math.inf
        return value / self._bound - 1 if self._bound > 0 else (0.0 if value <= 0 else math.inf)

    def of(self, value: float) -> Claim:
        """The claim for the best value.

        ``optimal`` needs a bound that the value reaches. A bound above the value is refuted by it and dropped.
        """
        gap = self.gap(value)
        if gap < -EQUAL:
            return Claim()
        bound = self._bound if math.isfinite(gap) else None
        if self._optimal and gap <= EQUAL:
            return Claim("optimal", self._mapspace, bound, max(0.0, gap))
        known = {"lower_bound": bound, "gap": max(0.0, gap)} if bound is not None else {}
        if self._proxy is not None:
            return Claim("proxy optimum", self._proxy.mapspace, **known)
        return Claim("best found", self._mapspace if bound is not None else "", **known)
