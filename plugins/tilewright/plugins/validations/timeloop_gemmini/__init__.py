"""``tilewright validate timeloop-gemmini``: cycles and energy of the Timeloop results that DOSA was published with.

The data come from a Timeloop of 2022, whose traffic rules are the convention ``release="2022"``. `exact` counts the
rows whose cycles are equal (to one cycle), `mape` and `max_error` are of the energy with DOSA's published coefficients.
These are rounded from Timeloop's built-in SRAM table: groups tell how much of the difference that explains, row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport

from .rows import COEFFICIENTS, DATA, Row, architecture, layer, read

SUITE = "timeloop-gemmini"
#: Energies are printed with six decimals of uJ, some with six significant digits: equal within these, they are the same.
PRINTED_UJ = 1.0e-6
PRINTED_RELATIVE = 5.0e-6


class TimeloopGemmini:
    """Compares the cost model with DOSA's data set."""

    options: ClassVar[dict[str, str]] = {}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Compare on a CSV file of that data set (``.gz`` too), or on the part of it that is shipped."""
        file = Path(path) if path else DATA
        rows = read(file)
        theirs_cycles = np.array([row.cycles for row in rows])
        theirs_energy = np.array([row.energy for row in rows])
        cycles, energies = _evaluate(file, rows)
        energy, table = energies["dosa"], energies["table"]
        off = np.abs(cycles - theirs_cycles)
        cycle_error = off / theirs_cycles
        energy_error = np.abs(energy - theirs_energy) / theirs_energy
        table_error = np.abs(table - theirs_energy) / theirs_energy
        same = np.abs(table - theirs_energy) <= PRINTED_UJ + PRINTED_RELATIVE * theirs_energy
        right = off <= 1
        groups = {
            "cycles": _report(file, cycle_error, right, _spearman(cycles, theirs_cycles)),
            "energy, DOSA's coefficients": _report(file, energy_error, energy_error == 0, _spearman(energy, theirs_energy)),
            "energy, Timeloop's built-in table": _report(file, table_error, same, _spearman(table, theirs_energy)),
        }
        causes = {
            "explained: coefficients rounded (equal to the printed digits with the built-in table)": same & right,
            "explained: energy only, cycles equal, beyond the printed digits with the built-in table": ~same & right,
            "unexplained: cycles differ": ~right,
        }
        for cause, which in causes.items():
            if which.any():
                groups[cause] = _report(file, energy_error[which], right[which], None)
        return ValidationReport(
            suite=SUITE,
            file=str(file),
            cases=len(rows),
            exact=int(right.sum()),
            within_1pct=int(((energy_error <= 0.01) & (cycle_error <= 0.01)).sum()),
            mape=100 * float(energy_error.mean()),
            max_error=100 * float(max(energy_error.max(), cycle_error.max())),
            spearman=groups["energy, DOSA's coefficients"].spearman,
            groups=groups,
        )


def _evaluate(file: Path, rows: list[Row]) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Our cycles, and uJ with each set of coefficients, of every row."""
    together: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault((row.hardware, row.layer), []).append(index)
    cycles, energies = np.empty(len(rows)), {name: np.empty(len(rows)) for name in COEFFICIENTS}
    for (sizes, _), indices in together.items():
        pool = _pool(file, [rows[index] for index in indices], [index + 1 for index in indices])
        for name, energy in energies.items():
            cycles[indices], picojoules = pool.on(architecture(sizes, name))
            energy[indices] = picojoules / 1e6
    return cycles, energies


def _pool(file: Path, rows: list[Row], numbers: list[int]) -> ln.Pool:
    """The mappings of rows with one layer on one machine; `InvalidInput` names the row that is not valid there."""
    try:
        problem = ln.Problem(layer(rows[0].layer), architecture(rows[0].hardware, "dosa"), conventions=ln.Conventions(release="2022"))
    except InvalidInput as error:
        raise InvalidInput(f"{file}, row {numbers[0]}: {error}") from error
    batch = ln.Batch.from_mappings(problem, [row.mapping for row in rows])
    for number, reason in zip(numbers, ln.reasons(ln.check(batch)), strict=True):
        if reason:
            raise InvalidInput(f"{file}, row {number}: {reason}")
    return ln.Pool(batch)


def _report(file: Path, errors: NDArray[np.float64], exact: NDArray[np.bool_], spearman: float | None) -> ValidationReport:
    return ValidationReport.of(SUITE, file, errors, exact=int(exact.sum()), spearman=spearman)


def _spearman(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float | None:
    """Rank correlation; None for fewer than two rows or constant figures."""
    from scipy.stats import rankdata

    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
