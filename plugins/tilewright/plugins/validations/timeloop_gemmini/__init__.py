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

from .rows import DATA, Row, architecture, hardware, layer, mapping, read

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
        if not rows:
            raise InvalidInput(f"{file}: has no rows")
        try:
            theirs_cycles = np.array([float(row["target.cycle"]) for row in rows])
            theirs_energy = np.array([float(row["target.energy"]) for row in rows])
        except ValueError as error:
            raise InvalidInput(f"{file}: {error}") from error
        cycles, energy = _evaluate(file, rows, "dosa")
        _, table = _evaluate(file, rows, "table")
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


def _evaluate(file: Path, rows: list[Row], coefficients: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Our cycles, and uJ, of every row."""
    together: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = {}
    for index, row in enumerate(rows):
        shape = tuple(value for column, value in row.items() if column.startswith("prob."))
        try:
            together.setdefault((hardware(row), shape), []).append(index)
        except ValueError as error:
            raise InvalidInput(f"{file}, row {index + 1}: {error}") from error
    cycles, energy = np.empty(len(rows)), np.empty(len(rows))
    for (sizes, _), indices in together.items():
        problem = ln.Problem(layer(rows[indices[0]]), architecture(sizes, coefficients), conventions=ln.Conventions(release="2022"))
        batch = ln.Batch.from_mappings(problem, [mapping(rows[index]["mapping.mapping"]) for index in indices])
        evaluation = ln.evaluate(batch)
        if not evaluation.valid.all():
            worst = int(np.flatnonzero(~evaluation.valid)[0])
            raise InvalidInput(f"{file}, row {indices[worst] + 1}: {ln.reasons(evaluation)[worst]}")
        cycles[indices] = evaluation.cycles
        energy[indices] = evaluation.energy_pj / 1e6
    return cycles, energy


def _report(file: Path, errors: NDArray[np.float64], exact: NDArray[np.bool_], spearman: float | None) -> ValidationReport:
    return ValidationReport(
        suite=SUITE,
        file=str(file),
        cases=len(errors),
        exact=int(exact.sum()),
        within_1pct=int((errors <= 0.01).sum()),
        mape=100 * float(errors.mean()),
        max_error=100 * float(errors.max()),
        spearman=spearman,
    )


def _spearman(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float | None:
    """Rank correlation; None for fewer than two rows or constant figures."""
    from scipy.stats import rankdata

    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
