"""The ``systolic`` simulator: a weight- or output-stationary array of R x C units, with fill and drain, for any target.

A product of M x K times K x N (a convolution: M pixels, K taps x channels, N filters) is folded onto the array:

* weight stationary: R x C weights stay, M rows of A stream through. A fold takes R cycles to load its weights and
  M + R + C - 2 until its last result leaves, so one after the other ``ceil(K/R) ceil(N/C) (2R + C + M - 2) - 1`` cycles;
* output stationary: R x C results stay while K pairs stream past them, R + C - 2 cycles of skew, R cycles to shift them out. SCALE-Sim
  lets the shifting out of a fold overlap the next one's skew and counts ``ceil(M/R) ceil(N/C) (K + R + C - 2) - 1``.

These are SCALE-Sim's (v3) cycles. With `overlap`, as real arrays have it, the weights of the next fold (the results of the last
one) move in registers of their own while a fold streams: a fold takes max(M, R) (max(K, R)) cycles, and fill and drain are paid once.

Memories may take longer than the array: their cycles are those of the analytical cost of the schedule's
mapping, and so are the events that energy is counted from.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import msgspec

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.cost import Cost, LatencyRow, Schedule
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.plugin import Context, Options, SimRequest, SimResult
from tilewright.protocol.workload import Operator

MODEL = "systolic/1"
DATAFLOWS = ("ws", "os")


class Array(NamedTuple):
    """Rows and columns of units, what stays in them, and whether folds overlap."""

    rows: int
    columns: int
    dataflow: str
    overlap: bool

    def cycles(self, m: int, k: int, n: int) -> int:
        """Cycles of one product; sizes in elements."""
        rows, columns = self.rows, self.columns
        stationary, streamed = (k, m) if self.dataflow == "ws" else (m, k)
        folds = -(-stationary // rows) * -(-n // columns)
        fill = rows if self.dataflow == "ws" else 0
        if not self.overlap:
            return folds * (streamed + fill + rows + columns - 2) - 1
        return rows + folds * max(streamed, rows) + rows + columns - 2


class Systolic:
    """Costs schedules by the folds of their operator on a systolic array."""

    options: ClassVar[dict[str, str]] = {
        "dataflow": "ws (default): weights stay in the array; os: results do",
        "overlap": "true (default): the next fold is loaded while one streams; false: SCALE-Sim's closed forms",
        "rows": "rows of the array (default: those of the architecture's mesh, or a square)",
        "columns": "columns of the array",
        "memory": "true (default): bandwidths hold the array up; false: the array alone",
    }

    def run(self, request: SimRequest, ctx: Context) -> SimResult:
        """Cost every schedule; `InvalidInput` names the one whose operator is no contraction, and options out of range."""
        array = array_of(request.architecture, request.options)
        memory = bool(request.options.get("memory", True))
        costs = []
        for index, schedule in enumerate(request.schedules):
            try:
                costs.append(_cost(schedule, request.architecture, array, memory))
            except (InvalidInput, InvalidMapping) as error:
                raise type(error)(f"schedule {index}: {error}") from None
        shares = tuple({row.resource: min(1.0, row.cycles / cost.cycles) for row in cost.latency} for cost in costs)
        return SimResult(tuple(costs), MODEL, shares)


def array_of(architecture: Architecture, options: Options) -> Array:
    """The array that options and architecture describe."""
    compute = architecture.compute
    side = math.isqrt(compute.instances)
    rows, columns = (compute.mesh_y, compute.mesh_x) if compute.mesh_y > 1 else (side, compute.instances // side)
    rows, columns = int(options.get("rows", rows)), int(options.get("columns", columns))
    dataflow = str(options.get("dataflow", "ws"))
    if dataflow not in DATAFLOWS:
        raise InvalidInput(f"dataflow: {dataflow!r}, expected {' or '.join(DATAFLOWS)}")
    if min(rows, columns) < 1 or rows * columns > compute.instances:
        raise InvalidInput(
            f"rows, columns: {rows} x {columns}, expected at least 1 x 1 and at most the {compute.instances} units there are"
        )
    return Array(rows, columns, dataflow, bool(options.get("overlap", True)))


def product_of(operator: Operator) -> tuple[int, int, int, int]:
    """(repetitions, M, K, N) of a contraction."""
    if not operator.is_contraction:
        raise InvalidInput(f"operator {operator.function}: the systolic simulator runs contractions")
    bounds = operator.bounds
    k, n, groups = (math.prod(bounds.get(dim, 1) for dim in dims) for dims in ("CRS", "K", "G"))
    return groups, operator.macs // (groups * k * n), k, n


def _cost(schedule: Schedule, architecture: Architecture, array: Array, memory: bool) -> Cost:
    repeat, m, k, n = product_of(schedule.operator)
    semantics: ln.Semantics = "walk" if schedule.mapping.is_ragged else "timeloop"
    cost = ln.cost(ln.Problem(schedule.operator, architecture, semantics=semantics), schedule.mapping)
    name = architecture.compute.name
    others = tuple(row for row in cost.latency if row.resource != name) if memory else ()
    cycles = repeat * array.cycles(m, k, n)
    whole = max(cycles, *(row.cycles for row in others), 0)
    said = f"{array.dataflow} array of {array.rows} x {array.columns}, folds {'overlap' if array.overlap else 'one after the other'}"
    return msgspec.structs.replace(
        cost,
        model=MODEL,
        fidelity="analytical",
        cycles=whole,
        latency=(LatencyRow(f"{name} array", cycles), *others),
        utilization=schedule.operator.macs / (architecture.compute.instances * whole),
        conventions=(*cost.conventions, said),
    )
