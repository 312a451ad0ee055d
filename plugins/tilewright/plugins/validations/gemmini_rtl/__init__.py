"""``tilewright validate gemmini-rtl``: simulated cycles and traffic against RTL simulations of Gemmini.

Three kinds of files, told apart by their header (comments begin with ``#``; see the shipped ones for where they come from):

* ``m,k,n,lat,cycles,read_bytes,read_reqs,write_bytes,write_reqs``: matrix products on a lean Gemmini behind an ideal memory;
* ``in,cin,cout,k,stride,pad,lat,cycles,ideal,mismatches``: convolutions on the same;
* ``m,k,n,rtl_cycles``: calls by a Rocket core on the default Gemmini, row strides of 512 bytes.

What the files leave open, and what is assumed: the lean machine sustains 32 requests (its published latency sweep says so: 31.5
per round trip), matrices lie one after the other aligned to 64 bytes. The public points see a round trip of 60 cycles and 1,300
cycles of the host per call, 300 more in the first, whose code is not cached yet; they ran in the order of the file. The half of
the scratchpad in which a first loop runs depends on what ran before: of the public points the file says it, other points on
which it matters are compared with the mean of both.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from scipy.stats import spearmanr

from tilewright.protocol import registry, validation
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport

SUITE = "gemmini-rtl"
SHIPPED = ("matmul.csv", "conv.csv", "gemm6.csv")
PUBLIC_LATENCY, PUBLIC_OVERHEAD, PUBLIC_FIRST, PUBLIC_STRIDE = 60, 1300, 300, 512
LINE = 64
Row = dict[str, int]


class Point(msgspec.Struct):
    """One measurement: simulated and measured cycles, and whether all traffic that the file has is equal (None: it has none)."""

    group: str
    simulated: float
    measured: int
    traffic: bool | None = None

    @property
    def error(self) -> float:
        """Relative error of the cycles."""
        return self.simulated / self.measured - 1


class GemminiRtl:
    """The suite. Groups are classes of shapes; `exact` counts points whose cycles are identical."""

    options: ClassVar[dict[str, str]] = {}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Simulate every point of a file, or of all shipped files; `InvalidInput` when the header is none of the three."""
        files = [(name, (resources.files(__package__) / name).read_text()) for name in SHIPPED] if path is None else [(path, _text(path))]
        points = [point for name, text in files for point in _measure(name, text)]
        name = path or ", ".join(SHIPPED)
        groups = {
            group: report(name, [point for point in points if point.group == group]) for group in dict.fromkeys(p.group for p in points)
        }
        with_traffic = [point for point in points if point.traffic is not None]
        if with_traffic:
            equal = sum(bool(point.traffic) for point in with_traffic)
            groups["traffic (requests and bytes, read and written)"] = ValidationReport(SUITE, name, len(with_traffic), exact=equal)
        return msgspec.structs.replace(report(name, points), groups=groups)


def report(file: str, points: list[Point]) -> ValidationReport:
    """Errors of some points."""
    pairs = [(point.simulated, point.measured) for point in points]
    correlation = float(spearmanr(pairs).statistic) if len(points) > 2 else None
    return ValidationReport.of(SUITE, file, (abs(point.error) for point in points), spearman=correlation)


def _text(path: str) -> str:
    try:
        return validation.read(Path(path)).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: {error}, expected text") from error


def _measure(name: str, text: str) -> list[Point]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    header = tuple(rows[0]) if rows else ()
    measure = {"m k n lat cycles": _each(_matmul), "in cin cout k stride": _each(_conv), "m k n rtl_cycles": _public}
    for start, function in measure.items():
        if header[: len(start.split())] == tuple(start.split()):
            try:
                return function([{key: int(value) for key, value in row.items()} for row in rows])
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"{name}: {error}, expected integers in every column") from None
    raise InvalidInput(f"{name}: columns {list(header)}, expected those of matrix products, convolutions or public points (see the suite)")


def _each(measure: Callable[[Row], Point]) -> Callable[[list[Row]], list[Point]]:
    return lambda rows: [measure(row) for row in rows]


def _matmul(row: Row) -> Point:
    simulator = registry.load("simulators", "gemmini")
    machine = simulator.lean(row["lat"])
    task = _task(simulator, row, 0)
    halves = (0, 1) if simulator.depends_on_half(task, machine) else (0,)
    outcomes = [simulator.matmul(task, machine, first_half=half) for half in halves]
    events = outcomes[0].events
    pairs = (("read_beats", "read_bytes", machine.bus_bytes), ("read_requests", "read_reqs", 1), ("write_bytes", "write_bytes", 1))
    traffic = all(events[ours] * unit == row[theirs] for ours, theirs, unit in (*pairs, ("write_requests", "write_reqs", 1)))
    cycles = sum(outcome.cycles for outcome in outcomes) / len(outcomes)
    return Point(_class(row["m"], row["n"]), cycles, row["cycles"], traffic)


def _task(simulator: Any, row: Row, stride: int) -> Any:
    m, k, n = row["m"], row["k"], row["n"]
    a = 1 << 20
    b = a + -(-m * (stride or k) // LINE) * LINE
    c = b + -(-k * (stride or n) // LINE) * LINE
    return simulator.matmul_task(m, n, k, a, b, c, stride)


def _class(m: int, n: int) -> str:
    return "GEMV" if m == 1 else "short M (<= 64)" if m <= 64 else "narrow N (<= 64)" if n <= 64 else "large"


def _conv(row: Row) -> Point:
    simulator = registry.load("simulators", "gemmini")
    out = (row["in"] + 2 * row["pad"] - row["k"]) // row["stride"] + 1
    task = simulator.conv_task(
        1,
        row["in"],
        row["in"],
        row["cin"],
        row["cout"],
        out,
        out,
        row["k"],
        row["stride"],
        row["pad"],
        addresses=[i << 26 for i in range(1, 5)],
    )
    kind = "first layer" if row["cin"] < 16 else "strided" if row["stride"] > 1 else f"{row['k']}x{row['k']}"
    return Point(f"conv {kind}", simulator.conv(task, simulator.lean(row["lat"])).cycles, row["cycles"])


def _public(rows: list[Row]) -> list[Point]:
    simulator = registry.load("simulators", "gemmini")
    machine = simulator.default(PUBLIC_LATENCY, PUBLIC_OVERHEAD)
    points: list[Point] = []
    loops = 0
    for row in rows:
        outcome = simulator.matmul(_task(simulator, row, PUBLIC_STRIDE), machine, first_half=loops % 2)
        points.append(Point("public points", outcome.cycles + (0 if points else PUBLIC_FIRST), row["rtl_cycles"]))
        loops += len(outcome.ends)
    return points
