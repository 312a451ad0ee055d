"""Plugins as small and quick as they can be, as a third party would install them; tests put this folder on the path."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level, Parameter
from tilewright.protocol.cost import Claim
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Candidate, Context, DesignCandidate, DesignRequest, Document, EmitRequest, MapRequest, Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator, Workload, matmul

ALL = ("Weights", "Inputs", "Outputs")


class Frontend:
    """Stacks of small matrix products; every second layer is equal to the first."""

    options: ClassVar[dict[str, str]] = {"layers": "how many (4)", "seq": "rows (8)"}

    def models(self) -> Sequence[str]:
        """The one model."""
        return ("toy-net",)

    def load(self, source: str, options: Options) -> Workload:
        """Build it."""
        rows = options.get("seq", 8)
        if not isinstance(rows, int) or not 1 <= rows <= 64:
            raise InvalidInput(f"seq: {rows!r}, expected 1 to 64")
        count = int(options.get("layers", 4))
        widths = [8 if index % 2 == 0 else 8 * (index + 1) for index in range(count)]
        return Workload.build(source, [(f"layer{index}", matmul(p=rows, c=16, k=width)) for index, width in enumerate(widths)])


class Target:
    """A few units over a buffer over DRAM."""

    def architecture(self, **parameters: int) -> Architecture:
        """The buffer's size is the only parameter."""
        kib = self.design_space().resolve(parameters)["buffer_kib"]
        return Architecture(
            name="toy",
            compute=Compute("MAC", 4, 4, 1, energy_pj=1.0),
            levels=(
                Level("Buffer", capacity_bits=kib * 8192, keeps=ALL, read_energy_pj=0.1 * kib, fill_energy_pj=1.0, update_energy_pj=1.0),
                Level("DRAM", shared_bandwidth=4.0, keeps=ALL, read_energy_pj=100.0, fill_energy_pj=100.0, update_energy_pj=100.0),
            ),
        )

    def design_space(self) -> DesignSpace:
        """What may change."""
        return DesignSpace((Parameter("buffer_kib", "KiB", low=4, high=64, default=32, step=2, geometric=True),))

    def constraints(self) -> Constraints:
        """Anything goes."""
        return Constraints()


def whole(operator: Operator, architecture: Architecture) -> Mapping:
    """Everything in the innermost buffer, one unit at work."""
    loops = tuple(Loop(dim.name, dim.bound) for dim in operator.dims)
    inner, *outer = architecture.levels
    return Mapping((LevelMapping(inner.name, temporal=loops, keep=ALL), *(LevelMapping(level.name, keep=ALL) for level in outer)))


class Mapper:
    """One mapping; takes its time when it is told to."""

    options: ClassVar[dict[str, str]] = {
        "seconds": "how long it works (0)",
        "fail": "raise instead (false)",
        "nothing": "find nothing (false)",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield the one mapping."""
        if request.options.get("fail"):
            raise RuntimeError("told to fail")
        if not request.options.get("nothing"):
            yield Candidate(whole(request.operator, request.architecture), Claim("best found", "one"))
        until = time.monotonic() + float(request.options.get("seconds", 0))
        while time.monotonic() < until and not ctx.cancelled:
            ctx.progress("working")
            time.sleep(0.02)


class Codesigner:
    """The smallest buffer."""

    options: ClassVar[dict[str, str]] = {"depth": "not used"}
    uses: ClassVar[tuple[str, ...]] = ()

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield the one design."""
        target = ctx.plugin("targets", request.target)
        for kib in (32, 4):
            parameters = {"buffer_kib": kib}
            architecture = target.architecture(**parameters)
            tasks = [task for each in request.workloads for task in each.workload.tasks if task.operator.is_contraction]
            ctx.charge(len(tasks))
            yield DesignCandidate(parameters, tuple(whole(task.operator, architecture) for task in tasks))


class Emitter:
    """An empty function."""

    options: ClassVar[dict[str, str]] = {}
    targets: ClassVar[tuple[str, ...]] = ("toy",)

    def emit(self, request: EmitRequest, ctx: Context) -> Kernel:
        """Emit it."""
        source, header = "void toy(void) {}\n", "void toy(void);\n"
        return Kernel(request.operator, request.target, "toy", source, header, "", Verification("not verified", "a toy"))


class Format:
    """One matrix product as JSON, mapped by `whole` on the toy target."""

    def read(self, paths: Sequence[str]) -> Document:
        """Merge the files."""
        text: dict[str, int] = {}
        for path in paths:
            text |= json.loads(Path(path).read_text())
        if "p" not in text:
            return Document(architecture=Target().architecture())
        operator = matmul(p=text["p"], c=text["c"], k=text["k"])
        architecture = Target().architecture()
        return Document(operator, architecture, Constraints(), whole(operator, architecture))

    def write(self, document: Document) -> dict[str, str]:
        """Nothing to write."""
        return {}


class Validation:
    """Says what it is told."""

    options: ClassVar[dict[str, str]] = {"cases": "how many (3)"}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """A report with one group."""
        cases = int(options.get("cases", 3))
        inner = ValidationReport("toy", path or "built in", cases, exact=cases, mape=0.0)
        return ValidationReport(
            "toy", path or "built in", cases, exact=cases, within_1pct=cases, mape=0.125, max_error=0.5, groups={"gemm": inner}
        )
