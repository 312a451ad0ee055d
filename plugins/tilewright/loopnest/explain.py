"""One number of a cost, down to its formula and coefficients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from tilewright.protocol.architecture import Estimator, Level, Price
from tilewright.protocol.errors import InvalidInput, InvalidMapping, suggest
from tilewright.protocol.mapping import Mapping

from .batch import Batch
from .energy import ACTIONS
from .estimators import ESTIMATORS, size_of_level
from .evaluate import Figures, figures
from .nest import extents
from .problem import Problem


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number, how it follows from others, and those others."""

    name: str
    value: float
    unit: str = ""
    #: In terms of the names of `terms`.
    formula: str = ""
    terms: tuple[Explanation, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The tree as indented text, one line per number."""
        value = f"{self.value:,.6g}" if isinstance(self.value, float) and not self.value.is_integer() else f"{int(self.value):,}"
        yield f"{'  ' * depth}{self.name} = {value}{f' {self.unit}' if self.unit else ''}{f'    [{self.formula}]' if self.formula else ''}"
        for term in self.terms:
            yield from term.lines(depth + 1)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def explain(problem: Problem, mapping: Mapping, figure: str = "energy") -> Explanation:
    """Why a figure of a mapping's cost is what it is.

    `figure` is ``energy``, ``cycles``, ``edp``, ``utilization``, ``area``, ``<level>.energy``, ``<level>.cycles``, or
    ``<level>.<tensor>.<tile_words, reads, fills, updates or energy>``. Raises `InvalidInput` for an unknown figure and
    `InvalidMapping` when the mapping is not valid.
    """
    batch = Batch.from_mappings(problem, [mapping])
    result, validity = figures(batch)
    if not validity.valid[0]:
        raise InvalidMapping(validity.describe(0))
    known = _Figures(problem, batch, result).known()
    if figure not in known:
        raise InvalidInput(f"figure {figure!r} is unknown{suggest(figure, known)}")
    return known[figure]()


class _Figures:
    """All explainable figures of one mapping."""

    def __init__(self, problem: Problem, batch: Batch, result: Figures) -> None:
        self.problem, self.batch, self.result = problem, batch, result
        self.traffic = result.traffic
        #: What is said after formulas that hold for whole tiles only.
        self.cut = ", less what ragged loops cut off" if problem.semantics == "walk" and batch.mapping(0).is_ragged else ""
        #: What is said after formulas that peer transfers change.
        self.peers = problem.conventions.peer_transfers

    def known(self) -> dict[str, Callable[[], Explanation]]:
        """Figure name -> what explains it."""
        found: dict[str, Callable[[], Explanation]] = {
            "energy": self.energy,
            "cycles": self.cycles,
            "edp": self.edp,
            "utilization": self.utilization,
            "area": self.area,
        }
        for i, level in enumerate(self.problem.levels):
            found[f"{level}.energy"] = partial(self.level_energy, i)
            found[f"{level}.cycles"] = partial(self.level_cycles, i)
            for t, tensor in enumerate(self.problem.tensors):
                if self.batch.keep[0, i, t]:
                    found[f"{level}.{tensor}.tile_words"] = partial(self.tile, i, t)
                    found[f"{level}.{tensor}.energy"] = partial(self.tensor_energy, i, t)
                    for action in ("reads", "fills", "updates"):
                        found[f"{level}.{tensor}.{action}"] = partial(self.words, i, t, action)
        return found

    def edp(self) -> Explanation:
        energy, cycles = self.energy(), self.cycles()
        return Explanation("EDP", energy.value * cycles.value, "pJ x cycles", "energy x cycles", (energy, cycles))

    def energy(self) -> Explanation:
        operator, prices = self.problem.operator, self.problem.prices
        if operator.is_contraction:
            name, count, each, price = self.problem.architecture.compute.name, operator.macs, prices.compute, "MACs"
        else:
            name, count, each, price = "special-function unit", operator.flops, prices.special, "operations"
        terms = [
            Explanation(
                f"{name}.energy",
                count * each,
                "pJ",
                f"{price} x pJ each",
                (Explanation(price, count), self._price("pJ each", self.problem.architecture.compute.energy_pj, each)),
            )
        ]
        terms += [self.level_energy(i) for i in range(len(self.problem.levels))]
        return Explanation("energy", float(self.result.energy[0]), "pJ", "sum over components", tuple(terms))

    def level_energy(self, i: int) -> Explanation:
        level = self.problem.architecture.levels[i]
        terms = [self.tensor_energy(i, t) for t in range(len(self.problem.tensors)) if self.batch.keep[0, i, t]]
        if self.problem.prices.leakage[i]:
            leaked = float(self.result.leakage[i][0])
            each = self._price("pJ per cycle and instance", level.leakage_pj_per_cycle, self.problem.prices.leakage[i], level)
            used = Explanation("used instances", int(self.result.nest.used[i][0]))
            cycles = Explanation("cycles", int(self.result.cycles[0]))
            terms.append(Explanation("leakage", leaked, "pJ", "used instances x cycles x pJ", (used, cycles, each)))
        for tensor, travelled in zip(self.problem.tensors, self.result.hops.get(i, ()), strict=False):
            hop = Explanation("words x hops", float(travelled[0]))
            price = Explanation("pJ per hop", self.problem.prices.hop[i], "pJ")
            terms.append(Explanation(f"network of {tensor}", hop.value * price.value, "pJ", "words x hops x pJ per hop", (hop, price)))
        return Explanation(f"{level.name}.energy", sum(term.value for term in terms), "pJ", "sum over tensors", tuple(terms))

    def tensor_energy(self, i: int, t: int) -> Explanation:
        level, tensor = self.problem.architecture.levels[i], self.problem.tensors[t]
        prices = self.problem.prices
        stated = (level.read_energy_pj, level.fill_energy_pj, level.update_energy_pj)
        terms = []
        for action, count, price, each in zip(
            ACTIONS, self.result.accesses[i][t], stated, (prices.read[i], prices.fill[i], prices.update[i]), strict=True
        ):
            accesses = float(count[0])
            if accesses:
                sharing = f", {level.cluster_size} instances of a cluster share one" if level.cluster_size > 1 else ""
                counted = Explanation(
                    f"{action} accesses",
                    accesses,
                    "blocks",
                    f"used instances x ceil({action}s / {level.block_words} words of a block){sharing}",
                    (Explanation("used instances", int(self.result.nest.used[i][0])), self.words(i, t, f"{action}s")),
                )
                cost = self._price("pJ each", price, each, level)
                terms.append(Explanation(f"{action} energy", accesses * each, "pJ", f"{action} accesses x pJ each", (counted, cost)))
        total = sum(term.value for term in terms)
        return Explanation(f"{level.name}.{tensor}.energy", total, "pJ", "sum over actions", tuple(terms))

    def words(self, i: int, t: int, action: str) -> Explanation:
        """Words of one instance."""
        name = f"{self.problem.levels[i]}.{self.problem.tensors[t]}.{action}"
        value = int({"reads": self.traffic.reads, "fills": self.traffic.fills, "updates": self.traffic.updates}[action][i][t][0])
        asked = self._asked(i, t)
        share = Explanation("share", int(self.traffic.share[i][0]), "words", "words of the result that one instance is responsible for")
        if t != self.problem.output:
            if action == "reads":
                how = "asked by its children" + (", and passed on to neighbours" if self.peers else "")
                return Explanation(name, value, "words", how, (asked,))
            if action == "updates":
                return Explanation(name, value, "words", "operands are not written from inside")
            return Explanation(name, value, "words", *self._filled(i, t, None))
        if action == "updates":
            if self.problem.conventions.outputs == "accelforge" and not self.batch.keep[0, :i, t].any():
                return Explanation(name, value, "words", "0: an accumulation is one access, counted as a read")
            return Explanation(name, value, "words", "partial sums that arrive from its children", (asked,))
        if action == "reads":
            how = {"timeloop": "updates - share: the first update of each word reads nothing"}.get(
                self.problem.conventions.outputs, f"as the convention {self.problem.conventions.outputs!r} counts"
            )
            return Explanation(name, value, "words", how, (asked, share))
        return Explanation(name, value, "words", *self._filled(i, t, share))

    def _filled(self, i: int, t: int, share: Explanation | None) -> tuple[str, tuple[Explanation, ...]]:
        if not self.batch.keep[0, i + 1 :, t].any():
            return "0: the tensor lives here", ()
        delivered = self._delivered(i, t)
        if share is None:
            return "delivered by the level outside" + (" or by neighbours" if self.peers else ""), (delivered,)
        if self.problem.conventions.release == "2022":
            return "delivered by the level outside, the first visit of a tile too", (delivered,)
        return "delivered - share: the first visit of a tile brings nothing", (delivered, share)

    def _asked(self, i: int, t: int) -> Explanation:
        """What the children of one instance ask for."""
        value = int(self.traffic.asked[i][t][0])
        children = int(self.traffic.distinct[i][t][0])
        distinct = Explanation(
            "children that differ", children, "", f"of {int(self.result.nest.spatial[i][:, 0].prod())} used ones; equal ones share"
        )
        inner = i - 1
        if inner < 0:
            steps = Explanation("steps", int(self.result.nest.steps[0]), "", "product of temporal loops; a unit wants one word per step")
            return Explanation("asked", value, "words", f"children that differ x steps{self.cut}", (distinct, steps))
        below = self._delivered(inner, t) if self.batch.keep[0, inner, t] else self._asked(inner, t)
        less = self.cut + (", less what neighbours pass on" if self.peers else "")
        return Explanation("asked", value, "words", f"children that differ x {below.name}{less}", (distinct, below))

    def _delivered(self, i: int, t: int) -> Explanation:
        """D, with the loops that bring it about."""
        loops = []
        nest = self.result.nest
        relevant = self.problem.shapes[t].dims
        started = False
        for k in range(i + 1, len(self.problem.levels)):
            for dim in nest.order[k][:, 0].tolist():
                factor = int(nest.temporal[k][dim][0])
                if factor > 1:
                    started = started or dim in relevant
                    name = f"{self.problem.levels[k]} {self.problem.dims[self.problem.active[dim]]}"
                    how = "repeats the tiles" if started else "moves nothing yet: free"
                    loops.append(Explanation(name, factor, "", how))
        name = f"delivered to {self.problem.levels[i]}"
        rule = "tile x loops from the innermost one that moves it outward"
        if self.problem.shapes[t].mixed:
            rule += ", less what sliding windows have in common"
        return Explanation(name, int(self.traffic.delivered[i][t][0]), "words", rule + self.cut, (self.tile(i, t), *loops))

    def tile(self, i: int, t: int) -> Explanation:
        """The box of one instance."""
        shape, nest = self.problem.shapes[t], self.result.nest
        terms = []
        for rank, length in zip(shape.ranks, extents(shape, nest.tile[i]), strict=True):
            dims = [(self.problem.dims[self.problem.active[dim]], coefficient, int(nest.tile[i][dim][0])) for dim, coefficient in rank]
            formula = " + ".join(f"{coefficient} x ({size} - 1)" for _, coefficient, size in dims)
            terms.append(Explanation(f"extent along {'+'.join(dim for dim, _, _ in dims)}", int(length[0]), "", f"1 + {formula}"))
        name = f"{self.problem.levels[i]}.{self.problem.tensors[t]}.tile_words"
        return Explanation(name, int(self.traffic.tiles[i][t][0]), "words", "product of extents", tuple(terms))

    def cycles(self) -> Explanation:
        compute = Explanation(
            f"{self.problem.architecture.compute.name}.cycles", int(self.result.computing[0]), "cycles", "product of temporal loops"
        )
        terms = [compute, *(self.level_cycles(i) for i in range(len(self.problem.levels)))]
        terms += [
            Explanation(
                f"{self.problem.levels[i]} network.cycles",
                int(each[0]),
                "cycles",
                "words over the network / its bandwidth; with routers, flits over its busiest link and one packet's hops",
            )
            for i, each in self.result.network_cycles.items()
        ]
        formula = "the slowest resource"
        if self.result.extra_cycles:
            formula = f"the slowest resource but {self.problem.levels[-1]}, plus the last {len(self.result.extra_cycles)} terms"
            terms += [Explanation(name, int(each[0]), "cycles") for name, each in self.result.extra_cycles]
        return Explanation("cycles", int(self.result.cycles[0]), "cycles", formula, tuple(terms))

    def level_cycles(self, i: int) -> Explanation:
        level = self.problem.architecture.levels[i]
        rows = [t for t in range(len(self.problem.tensors)) if self.batch.keep[0, i, t]]
        read = sum(int(self.traffic.reads[i][t][0]) for t in rows)
        written = sum(int(self.traffic.fills[i][t][0]) + int(self.traffic.updates[i][t][0]) for t in rows)
        terms = []
        for name, bandwidth, words in (
            ("read", level.read_bandwidth, read),
            ("written", level.write_bandwidth, written),
            ("read and written", level.shared_bandwidth, read + written),
        ):
            if bandwidth is not None:
                parts = (Explanation(f"words {name}", words), Explanation("words per cycle", bandwidth))
                terms.append(Explanation(f"{name} port", words / bandwidth, "cycles", f"words {name} / words per cycle", parts))
        formula = "no bandwidth is stated: the compute cycles"
        if terms:
            least = "" if self.problem.conventions.latency == "roofline" else ", at least the compute cycles"
            formula = f"ceil of the slowest port{least}"
        return Explanation(f"{level.name}.cycles", int(self.result.level_cycles[i][0]), "cycles", formula, tuple(terms))

    def utilization(self) -> Explanation:
        macs = Explanation("MACs", self.problem.operator.macs)
        units = Explanation("units", self.problem.architecture.compute.instances)
        cycles = self.cycles()
        value = macs.value / units.value / cycles.value
        return Explanation("utilization", value, "", "MACs / (units x cycles)", (macs, units, cycles))

    def area(self) -> Explanation:
        architecture, prices = self.problem.architecture, self.problem.prices
        rows = [Explanation(f"{architecture.compute.name}.area", prices.compute_area, "mm2")]
        for level, area in zip(architecture.levels, prices.area, strict=True):
            each = self._price("mm2 each", level.area_mm2, area / level.instances, level)
            rows.append(
                Explanation(f"{level.name}.area", area, "mm2", "instances x mm2 each", (Explanation("instances", level.instances), each))
            )
        return Explanation("area", sum(row.value for row in rows), "mm2", "sum over components", tuple(rows))

    def _price(self, name: str, stated: Price, value: float, level: Level | None = None) -> Explanation:
        unit = name.split()[0]
        if not isinstance(stated, Estimator):
            return Explanation(name, value, unit, f"stated by the architecture {self.problem.architecture.name!r}")
        source = (ESTIMATORS[stated.name].__doc__ or "").strip().splitlines()[0]
        size = {**(size_of_level(level) if level else {}), **stated.parameters}
        terms = tuple(Explanation(key, number) for key, number in size.items())
        return Explanation(name, value, unit, f"estimator {stated.name}: {source}", terms)
