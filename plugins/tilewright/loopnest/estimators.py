"""Energy and area as named functions of size. Each states its source; an unknown name is an error, never a guess.

An estimator sees the component's own fields (`size_of_level`, `size_of_compute`) with the parameters of the
`Estimator` on top, and answers pJ per access (per block access of a level), pJ per operation, or mm2 per instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level, Price
from tilewright.protocol.errors import InvalidArchitecture, suggest

Size = Mapping[str, float]


def free(size: Size) -> float:
    """Nothing: an idealized component, said explicitly. No source: it is an assumption of whoever writes it."""
    return 0.0


def timeloop_sram(size: Size) -> float:
    """SRAM access, pJ, of Timeloop's built-in table; the access of a cluster is shared by its members.

    Linear between 0.5 KiB at 1 pJ and 100 KiB at 6 pJ for a 16-bit word, proportional to the width of the access.
    """
    width = size["word_bits"] * size["block_words"] * size["cluster_size"]
    kib = width * -(-size["capacity_words"] // size["block_words"]) / 8192
    return (1 + 5 / 99.5 * (kib - 0.5)) * width / 16 / size["cluster_size"]


def timeloop_dram(size: Size) -> float:
    """DRAM access, pJ, of Timeloop's built-in table: 200 pJ per 16 bits."""
    return 200 * size["word_bits"] * size["block_words"] / 16


def timeloop_multiplier(size: Size) -> float:
    """Multiply-accumulate, pJ, of Timeloop's built-in table: quadratic in the operand width, 1 pJ at 16 bits."""
    return (size["bits"] / 16) ** 2


def dosa_mac(size: Size) -> float:
    """8-bit multiply-accumulate in 40 nm, pJ: DOSA's published fit to Accelergy."""
    return 0.5608


def dosa_register(size: Size) -> float:
    """8-bit register access in 40 nm, pJ per word: DOSA's published fit."""
    return 0.48746172 * size["block_words"]


def dosa_accumulator(size: Size) -> float:
    """32-bit accumulator SRAM access in 40 nm, pJ per word: DOSA's published linear fit in KiB per instance (column)."""
    return (1.94 + 0.1005 * size["capacity_kib"]) * size["block_words"]


def dosa_scratchpad(size: Size) -> float:
    """8-bit scratchpad SRAM access in 40 nm, pJ per word: DOSA's published linear fit in KiB of the whole memory."""
    return (0.49 + 0.02513 * size["capacity_kib"] * size["instances"]) * size["block_words"]


def dosa_dram(size: Size) -> float:
    """DRAM access, pJ per 8-bit word: DOSA's published coefficient."""
    return 100.0 * size["block_words"]


def accelergy_pe_area(size: Size) -> float:
    """8-bit multiply-accumulate unit with its weight register, mm2 at 40 nm.

    This and the next two: least squares of relative errors to ``target.area`` of 48 of the 95 architectures in DOSA's Timeloop
    data set (ucb-bar/dosa, BSD-2-Clause; Accelergy with CACTI): 4.0 % mean error (10 % worst) on the other 47.
    """
    return 3.7056e-4


def accelergy_accumulator_area(size: Size) -> float:
    """32-bit accumulator bank of one column with its adders, mm2 at 40 nm; up to half a KiB all are as large (fit to Accelergy)."""
    beyond = max(0.0, size["capacity_kib"] - 0.5)
    return 3.5569e-3 + 5.28092e-3 * beyond + 4.94416e-3 * min(2.0, beyond)


def accelergy_scratchpad_area(size: Size) -> float:
    """8-bit scratchpad SRAM, mm2 at 40 nm: linear in KiB (fit to Accelergy)."""
    return 2.64265e-3 * size["capacity_kib"]


ESTIMATORS: dict[str, Callable[[Size], float]] = {
    "free": free,
    "timeloop-sram": timeloop_sram,
    "timeloop-dram": timeloop_dram,
    "timeloop-multiplier": timeloop_multiplier,
    "dosa-mac": dosa_mac,
    "dosa-register": dosa_register,
    "dosa-accumulator": dosa_accumulator,
    "dosa-scratchpad": dosa_scratchpad,
    "dosa-dram": dosa_dram,
    "accelergy-pe-area": accelergy_pe_area,
    "accelergy-accumulator-area": accelergy_accumulator_area,
    "accelergy-scratchpad-area": accelergy_scratchpad_area,
}


def size_of_level(level: Level) -> dict[str, float]:
    """What an estimator may know of a level."""
    size: dict[str, float] = {
        "word_bits": level.word_bits,
        "block_words": level.block_words,
        "instances": level.instances,
        "cluster_size": level.cluster_size,
    }
    if level.capacity_bits is not None:
        size |= {
            "capacity_bits": level.capacity_bits,
            "capacity_words": level.capacity_bits // level.word_bits,
            "capacity_kib": level.capacity_bits / 8192,
        }
    return size


def size_of_compute(compute: Compute) -> dict[str, float]:
    """What an estimator may know of the compute units."""
    return {"bits": compute.bits, "instances": compute.instances}


def price(value: Price, size: Size, field: str) -> float:
    """The number that a price stands for.

    Raises `InvalidArchitecture` naming `field` when the estimator is unknown or needs what the component does not state.
    """
    if not isinstance(value, Estimator):
        return float(value)
    function = ESTIMATORS.get(value.name)
    if function is None:
        raise InvalidArchitecture(f"{field}: estimator {value.name!r} is unknown{suggest(value.name, ESTIMATORS)}")
    try:
        return function({**size, **value.parameters})
    except KeyError as missing:
        raise InvalidArchitecture(f"{field}: estimator {value.name!r} needs {missing}, which the component does not state") from None


class Prices:
    """All prices of an architecture as numbers, levels innermost first."""

    def __init__(self, architecture: Architecture) -> None:
        compute = architecture.compute
        #: pJ per multiply-accumulate.
        self.compute = price(compute.energy_pj, size_of_compute(compute), f"{compute.name}.energy_pj")
        #: mm2 of all compute units.
        self.compute_area = compute.instances * price(compute.area_mm2, size_of_compute(compute), f"{compute.name}.area_mm2")
        levels = architecture.levels
        sizes = [size_of_level(level) for level in levels]

        def of(field: str) -> list[float]:
            return [price(getattr(level, field), size, f"{level.name}.{field}") for level, size in zip(levels, sizes, strict=True)]

        #: pJ per block access.
        self.read, self.fill, self.update = of("read_energy_pj"), of("fill_energy_pj"), of("update_energy_pj")
        #: pJ per cycle and instance.
        self.leakage = of("leakage_pj_per_cycle")
        #: mm2 of all instances of a level.
        self.area = [level.instances * each for level, each in zip(levels, of("area_mm2"), strict=True)]
        #: pJ per word and hop of the network below a level.
        self.hop = [
            price(level.network.hop_energy_pj, size, f"{level.name}.network.hop_energy_pj") if level.network else 0.0
            for level, size in zip(levels, sizes, strict=True)
        ]
        unit = architecture.special_function_unit
        #: pJ per scalar operation of the special-function unit.
        self.special = price(unit.energy_pj, {"lanes": unit.lanes}, "special_function_unit.energy_pj") if unit else 0.0
