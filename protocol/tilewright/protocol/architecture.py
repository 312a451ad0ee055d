"""What it runs on: compute, storage levels, networks, and what about them may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from .errors import InvalidArchitecture, suggest

#: A count, no larger than what an int64 holds.
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
#: Words per cycle; a bandwidth that is not limited is None, not 0.
Bandwidth = Annotated[float, msgspec.Meta(gt=0)]


class Estimator(msgspec.Struct, frozen=True):
    """A number that follows from size: a function registered in `tilewright.loopnest.estimators` under `name`.

    It is evaluated with the component's own fields (capacity_bits, word_bits, block_words, instances, ...) and
    `parameters` on top.
    """

    name: str
    parameters: dict[str, float] = {}


#: pJ (or mm2) as a plain number or by a named estimator.
Price = NonNegative | Estimator


class Compute(msgspec.Struct, frozen=True, omit_defaults=True):
    """The multiply-accumulate units."""

    name: str
    #: Physical units, laid out as ``mesh_x x mesh_y``.
    instances: Positive
    mesh_x: Positive = 1
    mesh_y: Positive = 1
    #: Operand width in bits.
    bits: Positive = 8
    #: pJ per multiply-accumulate.
    energy_pj: Price = 0.0
    #: mm2 per unit.
    area_mm2: Price = 0.0


class Network(msgspec.Struct, frozen=True, omit_defaults=True):
    """The interconnect between a level and its child level."""

    #: Words per cycle out of one parent instance; None: unlimited.
    bandwidth: Bandwidth | None = None
    #: One word sent once can reach many children.
    multicast: bool = True
    #: Partial sums are added on the way up.
    reduction: bool = True
    #: pJ per word and hop.
    hop_energy_pj: Price = 0.0
    #: Bits of a flit: the children are nodes of a mesh of routers whose links move one flit per cycle. None: no mesh is modelled.
    flit_bits: Positive | None = None
    #: Flits of data in a packet, beside its one header flit.
    payload_flits: Positive = 4


class Level(msgspec.Struct, frozen=True, omit_defaults=True):
    """One storage level. Bandwidths are words per cycle and instance; None means unlimited."""

    name: str
    #: Bits one instance holds; None: unlimited (DRAM).
    capacity_bits: Positive | None = None
    #: Bits of one word. Capacity in words is ``capacity_bits // word_bits``.
    word_bits: Positive = 8
    #: Words moved per access (energy is charged per access of a block).
    block_words: Positive = 1
    #: Physical copies, laid out as ``mesh_x x mesh_y``.
    instances: Positive = 1
    mesh_x: Positive = 1
    mesh_y: Positive = 1
    #: Instances that share one physical array (and one access).
    cluster_size: Positive = 1
    read_bandwidth: Bandwidth | None = None
    write_bandwidth: Bandwidth | None = None
    shared_bandwidth: Bandwidth | None = None
    #: 2: half of the capacity holds the next tile.
    multiple_buffering: Positive = 1
    #: Tensors that live here unless a mapping says otherwise.
    keeps: tuple[str, ...] = ()
    #: Tensors that may live here; empty: any.
    may_keep: tuple[str, ...] = ()
    #: pJ per block access.
    read_energy_pj: Price = 0.0
    fill_energy_pj: Price = 0.0
    update_energy_pj: Price = 0.0
    #: pJ per cycle and instance.
    leakage_pj_per_cycle: Price = 0.0
    #: mm2 per instance.
    area_mm2: Price = 0.0
    #: Levels of one pool share one physical memory: the sum of their tiles must fit the pool's capacity.
    pool: str = ""
    #: The network between this level and its child.
    network: Network | None = None

    @property
    def capacity_words(self) -> int | None:
        """Words one instance holds, before multiple buffering."""
        return None if self.capacity_bits is None else self.capacity_bits // self.word_bits

    @property
    def usable_words(self) -> int | None:
        """Words a mapping may use: ``floor(capacity / multiple_buffering)``."""
        words = self.capacity_words
        return None if words is None else words // self.multiple_buffering


class SpecialFunctionUnit(msgspec.Struct, frozen=True, omit_defaults=True):
    """The unit for non-linear operators."""

    #: Elements per cycle.
    lanes: Positive
    #: pJ per scalar operation.
    energy_pj: Price = 0.0


class Architecture(msgspec.Struct, frozen=True, omit_defaults=True):
    """One accelerator core."""

    name: str
    compute: Compute
    #: Innermost (next to the compute) first, DRAM last.
    levels: tuple[Level, ...]
    clock_ghz: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    special_function_unit: SpecialFunctionUnit | None = None
    #: Where the numbers come from.
    source: str = ""

    def __post_init__(self) -> None:
        if not self.levels:
            raise InvalidArchitecture("levels: empty, expected at least one storage level")
        names = [level.name for level in self.levels]
        if len(set(names)) != len(names):
            raise InvalidArchitecture(f"levels: {names} names a level twice")
        parts: tuple[Compute | Level, ...] = (self.compute, *self.levels)
        inner = parts[0]
        for part in parts:
            for field in ("instances", "mesh_x", "mesh_y"):
                if getattr(part, field) < 1:
                    raise InvalidArchitecture(f"{part.name}.{field}: {getattr(part, field)}, expected >= 1")
            if part.instances != part.mesh_x * part.mesh_y:
                raise InvalidArchitecture(
                    f"{part.name}.instances: {part.instances}, expected mesh_x x mesh_y = {part.mesh_x * part.mesh_y}"
                )
            if inner.mesh_x % part.mesh_x or inner.mesh_y % part.mesh_y:
                raise InvalidArchitecture(
                    f"{part.name}: mesh {part.mesh_x} x {part.mesh_y} does not divide that of {inner.name}, {inner.mesh_x} x {inner.mesh_y}"
                )
            inner = part

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels, innermost first."""
        return tuple(level.name for level in self.levels)

    def index(self, name: str) -> int:
        """Position of a level, 0 = innermost; KeyError when there is none."""
        try:
            return self.level_names.index(name)
        except ValueError:
            raise KeyError(name) from None

    def level(self, name: str) -> Level:
        """The level called `name`; KeyError when there is none."""
        return self.levels[self.index(name)]

    def fanout(self, index: int) -> tuple[int, int]:
        """Children (X, Y) of one instance of level `index`; the child of level 0 is the compute."""
        level = self.levels[index]
        child: Compute | Level = self.levels[index - 1] if index else self.compute
        return child.mesh_x // level.mesh_x, child.mesh_y // level.mesh_y

    @property
    def states_area(self) -> bool:
        """Does any component state an area? Without one, the area is not 0 but unknown."""
        return bool(self.compute.area_mm2) or any(level.area_mm2 for level in self.levels)

    @property
    def peak_macs_per_cycle(self) -> int:
        """MACs per cycle with every unit busy."""
        return self.compute.instances


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number of a design space, an argument of ``Target.architecture``."""

    name: str
    #: What it counts, e.g. ``KiB``, ``PEs``, ``words/cycle``.
    unit: str
    low: int
    high: int
    default: int
    #: Values are ``low, low + step, ...`` or, when `geometric`, ``low, low x step, ...``.
    step: int = 1
    geometric: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise InvalidArchitecture(f"{self.name}.default: {self.default}, expected a value from {self.low} to {self.high}")
        if self.step < 1 + self.geometric:
            raise InvalidArchitecture(f"{self.name}.step: {self.step}, expected >= {1 + self.geometric}")
        if self.geometric and self.low < 1:
            raise InvalidArchitecture(f"{self.name}.low: {self.low}, expected >= 1 for a geometric parameter")

    @property
    def values(self) -> tuple[int, ...]:
        """All values, ascending."""
        if not self.geometric:
            return tuple(range(self.low, self.high + 1, self.step))
        values = [self.low]
        while values[-1] * self.step <= self.high:
            values.append(values[-1] * self.step)
        return tuple(values)


class DesignSpace(msgspec.Struct, frozen=True):
    """The numbers of a target that may change."""

    parameters: tuple[Parameter, ...] = ()

    def resolve(self, overrides: Mapping[str, int]) -> dict[str, int]:
        """Every parameter's value: the override, or the default.

        Any integer between a parameter's limits is accepted; `Parameter.values` says which ones a search visits.
        Raises `InvalidArchitecture` for an unknown name (with the nearest one) or a value outside of the limits.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in overrides.items():
            if name not in known:
                raise InvalidArchitecture(f"design-space parameter {name!r} is unknown{suggest(name, known)}")
            parameter = known[name]
            if isinstance(value, bool) or not isinstance(value, int) or not parameter.low <= value <= parameter.high:
                raise InvalidArchitecture(
                    f"{name}: {value!r}, expected an integer from {parameter.low} to {parameter.high} {parameter.unit}"
                )
        return {name: overrides.get(name, parameter.default) for name, parameter in known.items()}


class LevelConstraint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a mapping may do at one level; None means anything."""

    level: str
    #: Dims that may be spatial below this level.
    spatial_dims: tuple[str, ...] | None = None
    #: Dims that may have temporal loops at this level.
    temporal_dims: tuple[str, ...] | None = None
    #: Tensors that must be kept here, and no others; None: as the architecture allows.
    keep: tuple[str, ...] | None = None
    #: Upper limits on the (temporal) factor of a dim at this level.
    max_factors: dict[str, int] = {}


class Constraints(msgspec.Struct, frozen=True):
    """The mapspace a target honours."""

    levels: tuple[LevelConstraint, ...] = ()

    def level(self, name: str) -> LevelConstraint:
        """The constraint of a level (an empty one when none is stated)."""
        for constraint in self.levels:
            if constraint.level == name:
                return constraint
        return LevelConstraint(name)
