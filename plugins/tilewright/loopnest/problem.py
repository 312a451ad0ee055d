"""An operator on an architecture, compiled to what the formulas need.

Symbols of the package: B mappings, L levels (innermost first), D dims, T tensors, K = D positions of a temporal block
(innermost first). Counts are in words unless "block" is said, times in cycles, energies in pJ.
"""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.architecture import Architecture, Constraints
from tilewright.protocol.errors import InvalidArchitecture, InvalidInput, InvalidMapping, InvalidOperator, suggest
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import Dim, Operator

from .conventions import TIMELOOP, Conventions
from .estimators import Prices

Semantics = Literal["timeloop", "walk"]
#: Counts beyond this may not fit an int64 when a few of them are added.
LARGEST_COUNT = 2**60

#: (dim, coefficient) pairs of one rank.
Window = tuple[tuple[int, int], ...]


class TensorShape:
    """One tensor in terms of the active dims (those with a bound above 1)."""

    def __init__(self, ranks: list[Window]) -> None:
        #: Ranks that any active dim moves.
        self.ranks = [rank for rank in ranks if rank]
        #: Active dims that move it.
        self.dims = sorted({dim for rank in self.ranks for dim, _ in rank})
        #: Ranks that mix two or more active dims: sliding windows.
        self.mixed = [rank for rank in self.ranks if len(rank) > 1]
        #: Dims with a rank of their own: moving along one of them never leaves an overlap.
        self.plain = sorted({dim for rank in self.ranks if len(rank) == 1 for dim, _ in rank})

    @property
    def compact(self) -> bool:
        """True when tiles that differ never share words and leave no gaps: every rank is one dim of its own."""
        return not self.mixed and all(rank[0][1] == 1 for rank in self.ranks) and len(self.ranks) == len(self.dims)

    def groups(self) -> list[list[int]]:
        """Relevant dims, grouped so that dims of one rank are together."""
        groups: list[set[int]] = []
        for rank in self.ranks:
            group = {dim for dim, _ in rank}
            for other in [each for each in groups if each & group]:
                groups.remove(other)
                group |= other
            groups.append(group)
        return [sorted(group) for group in groups]


class Problem:
    """An operator on an architecture under constraints, a traffic semantics and conventions.

    Compiled once, reused for every batch; equal problems are equal and hash alike.

    Raises `InvalidOperator` when the operator cannot be costed under the semantics or its counts may exceed int64, and
    `InvalidArchitecture` for an unknown estimator, a constraint on an unknown level; either names the field that is not of its
    declared type or range.
    """

    def __init__(
        self,
        operator: Operator,
        architecture: Architecture,
        constraints: Constraints | None = None,
        semantics: Semantics = "timeloop",
        conventions: Conventions = TIMELOOP,
    ) -> None:
        self.operator = operator
        self.architecture = architecture
        self.constraints = constraints or Constraints()
        self.semantics: Semantics = semantics
        self.conventions = conventions
        _well_formed(operator, InvalidOperator, "operator")
        for dim in operator.dims:
            if dim.bound > LARGEST_COUNT:
                raise InvalidOperator(f"dims.{dim.name}: bound is {dim.bound}, beyond what int64 counts hold ({LARGEST_COUNT:.3g})")
        _well_formed(architecture, InvalidArchitecture, architecture.name)
        #: Names of the dims (D), tensors (T) and levels (L, innermost first).
        self.dims: tuple[str, ...] = tuple(dim.name for dim in operator.dims)
        self.tensors: tuple[str, ...] = tuple(tensor.name for tensor in operator.tensors)
        self.levels: tuple[str, ...] = architecture.level_names
        #: int64[D].
        self.bounds: NDArray[np.int64] = np.array([dim.bound for dim in operator.dims], np.int64)
        #: bool[T, D]: does the dim move the tensor?
        self.relevant: NDArray[np.bool_] = np.array([[dim in tensor.dims for dim in self.dims] for tensor in operator.tensors], bool)
        #: Index of the written tensor.
        self.output = self.tensors.index(operator.output)
        #: Indices of the dims with a bound above 1; formulas see only these.
        self.active: list[int] = [i for i, dim in enumerate(operator.dims) if dim.bound > 1] or [0]
        self.active_bounds = self.bounds[self.active]
        self.shapes = [TensorShape(self._windows(name)) for name in self.tensors]
        self.prices = Prices(architecture)
        self._check()

    def _windows(self, tensor: str) -> list[Window]:
        """Ranks of a tensor over active dims; terms of one dim are added up."""
        position = {self.dims[dim]: i for i, dim in enumerate(self.active)}
        windows = []
        for rank in self.operator.tensor(tensor).ranks:
            sums: dict[int, int] = {}
            for term in rank.terms:
                if term.dim in position:
                    at = position[term.dim]
                    sums[at] = sums.get(at, 0) + term.coefficient
            windows.append(tuple(sums.items()))
        return windows

    def _check(self) -> None:
        operator, name = self.operator, self.operator.output
        if self.semantics not in ("timeloop", "walk"):
            raise InvalidOperator(f"semantics: {self.semantics!r}, expected 'timeloop' or 'walk'")
        undefined = [name for name in self.conventions.names if not name.startswith("latency=")]
        if self.semantics == "walk" and undefined:
            raise InvalidInput(f"conventions: {', '.join(undefined)}: not defined for semantics 'walk'")
        if self.semantics == "timeloop":
            for rank in self.shapes[self.output].mixed:
                mixed = " and ".join(self.dims[self.active[dim]] for dim, _ in rank)
                raise InvalidOperator(
                    f"tensors.{name}: the written tensor has a rank that mixes the dims {mixed}, which the semantics 'timeloop' does not "
                    "define; use semantics 'walk' (or, for a transposed convolution, one operator per stride phase)"
                )
            for rank in self.shapes[self.output].ranks:
                if rank[0][1] > 1:
                    raise InvalidOperator(
                        f"tensors.{name}: the written tensor has a stride of {rank[0][1]} along {self.dims[self.active[rank[0][0]]]}, "
                        "which the semantics 'timeloop' does not define; use semantics 'walk'"
                    )
        largest = self.largest_count
        if largest > LARGEST_COUNT:
            sizes = " x ".join(f"{dim.name}={dim.bound}" for dim in operator.dims)
            raise InvalidOperator(f"dims: {sizes}: counts may reach {largest:.3g}, beyond what int64 holds ({LARGEST_COUNT:.3g})")
        if not operator.is_contraction and self.architecture.special_function_unit is None:
            raise InvalidArchitecture(
                f"special_function_unit: none, but the operator's function is {operator.function!r}; "
                "an architecture needs one to run non-linear operators"
            )
        for level in self.architecture.levels:
            if level.read_energy_pj == level.fill_energy_pj == level.update_energy_pj == 0:
                raise InvalidArchitecture(
                    f"{level.name}.read_energy_pj: no energy per access (read, fill and update are 0); "
                    "state one, or the estimator 'free' for an idealized level"
                )
            for field in ("read_bandwidth", "write_bandwidth", "shared_bandwidth"):
                bandwidth = getattr(level, field)
                if bandwidth is not None and largest / bandwidth > LARGEST_COUNT:
                    raise InvalidArchitecture(f"{level.name}.{field}: {bandwidth} words per cycle: cycles may go beyond what int64 holds")
        for constraint in self.constraints.levels:
            if constraint.level not in self.levels:
                raise InvalidArchitecture(f"constraints: level {constraint.level!r} is unknown{suggest(constraint.level, self.levels)}")

    def shares(self, level: int, tensor: int) -> bool:
        """Can one transfer below a level serve several children: multicast of an operand, reduction of the written tensor?"""
        network = self.architecture.levels[level].network
        return network is None or (network.reduction if tensor == self.output else network.multicast)

    @property
    def has_networks(self) -> bool:
        """Does any network have a bandwidth, routers or a price?"""
        networks = [level.network for level in self.architecture.levels if level.network is not None]
        return any(each.bandwidth is not None or each.flit_bits is not None for each in networks) or any(self.prices.hop)

    @property
    def needs_mesh(self) -> bool:
        """Does any figure depend on the mesh axes of spatial loops?"""
        routed = any(level.network is not None and level.network.flit_bits is not None for level in self.architecture.levels)
        return self.conventions.latency == "first-load" or any(self.prices.hop) or routed

    @property
    def largest_count(self) -> int:
        """No count of any valid mapping exceeds this (a tile's box is at most the product of coefficient x extent of its terms)."""
        largest = 0
        for shape in self.shapes:
            box = math.prod(coefficient * int(self.active_bounds[dim]) for rank in shape.ranks for dim, coefficient in rank)
            others = math.prod(int(bound) for dim, bound in enumerate(self.active_bounds) if dim not in shape.dims)
            largest = max(largest, box * others)
        return largest * self.operator.passes

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What decides equality."""
        return (self.operator, self.architecture, self.constraints, self.semantics, self.conventions)

    @cached_property
    def _hash(self) -> int:
        return hash(repr(self.key))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Problem) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def on(self, architecture: Architecture) -> Problem:
        """The same question on an architecture with the same levels; `InvalidArchitecture` when their names differ."""
        if architecture.level_names != self.levels:
            raise InvalidArchitecture(f"levels: {list(architecture.level_names)}, expected {list(self.levels)}")
        there = copy.copy(self)
        for cached in ("key", "_hash"):
            there.__dict__.pop(cached, None)
        _well_formed(architecture, InvalidArchitecture, architecture.name)
        there.architecture = architecture
        there.prices = Prices(architecture)
        there._check()
        return there

    def index(self, tensor: str) -> int:
        """Index of a tensor; KeyError when there is none."""
        try:
            return self.tensors.index(tensor)
        except ValueError:
            raise KeyError(tensor) from None


def _well_formed(value: Operator | Architecture, invalid: type[InvalidInput], name: str) -> None:
    """Refuse fields that are not of their declared type and range: structs made in Python were never checked against it."""
    try:
        msgspec.convert(msgspec.to_builtins(value, enc_hook=_number), type(value))
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise invalid(f"{name}{path.rstrip('`')}: {what[0].lower()}{what[1:]}") from error
    except TypeError as error:
        raise invalid(f"{name}: {error}") from error


def _number(value: object) -> object:
    """A numpy number as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__}, expected a number or a name")


def default_keep(problem: Problem) -> NDArray[np.bool_]:
    """Which tensors live where unless a mapping says otherwise: bool[L, T].

    A constraint's `keep` wins over the architecture's `keeps`. Further operands (``Inputs2``) live where ``Inputs`` do.
    The outermost level keeps everything when it states nothing.
    """
    keep = np.zeros((len(problem.levels), len(problem.tensors)), bool)
    for at, level in enumerate(problem.architecture.levels):
        names = problem.constraints.level(level.name).keep
        if names is None:
            names = level.keeps or (problem.tensors if at == len(problem.levels) - 1 else ())
        keep[at] = [base_name(tensor) in names or tensor in names for tensor in problem.tensors]
    return keep


def base_name(tensor: str) -> str:
    """``Inputs`` for ``Inputs2``: the name that architectures know."""
    return tensor.rstrip("0123456789")


def pad(operator: Operator, mapping: Mapping) -> Operator:
    """The operator with bounds raised to the products of a mapping's factors: what runs when nothing is cut short.

    The cost of the padded operator counts the padding as work; the walk of the original with ragged loops does not.
    Raises `InvalidMapping` for unknown dims or products below a bound.
    """
    reach = dict.fromkeys(operator.bounds, 1)
    for level in mapping.levels:
        for loop in (*level.spatial, *level.temporal):
            if loop.dim not in reach:
                raise InvalidMapping(f"{level.level}: dim {loop.dim!r} is unknown{suggest(loop.dim, reach)}")
            reach[loop.dim] *= loop.factor
    for dim in operator.dims:
        if reach[dim.name] < dim.bound:
            raise InvalidMapping(f"factors of {dim.name} multiply to {reach[dim.name]}, expected at least its bound {dim.bound}")
    return msgspec.structs.replace(operator, dims=tuple(Dim(name, bound) for name, bound in reach.items()))
