"""Times kernels, and BLAS beside them, in one compiled program: interleaved rounds on CPU time, ratios of medians."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewright.protocol.errors import InvalidInput, TilewrightError
from tilewright.protocol.kernel import Measurement
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .header import arguments
from .numbers import C_TYPES
from .plan import Plan, fill
from .source import generate
from .toolchain import Ready, build_and_run, find

#: Name of the contender that is not ours.
BLAS = "numpy's BLAS"
#: Most samples per contender (as in the C program).
MOST_ROUNDS = 64


class NotMeasurable(TilewrightError):
    """Nothing here can compile and run the kernels, or they failed."""


def native_toolchain(plan: Plan) -> Ready:
    """The toolchain whose programs are this machine's own; NotMeasurable says what is missing."""
    missing = []
    for found in find(plan.library):
        if isinstance(found, Ready) and found.toolchain.name == "native":
            return found
        missing.append(found.reason if not isinstance(found, Ready) else f"{found.toolchain.name} is an emulator")
    raise NotMeasurable(f"{plan.library.name} kernels cannot be timed here: {'; '.join(missing)}")


def race(plans: Mapping[str, Plan], rounds: int, blas: bool) -> dict[str, list[float]]:
    """Seconds per call of every plan's own-size entry point in every round, and of numpy's BLAS (f32 only)."""
    if not 1 <= rounds <= MOST_ROUNDS:
        raise InvalidInput(f"rounds: {rounds}, expected 1 to {MOST_ROUNDS}")
    first = next(iter(plans.values()))
    ready = native_toolchain(first)
    files: dict[str, str] = {}
    for plan in plans.values():
        code = generate(plan)
        files |= {f"{plan.name}.c": code.source, f"{plan.name}.h": code.header}
    sources = tuple(name for name in files if name.endswith(".c"))
    library = numpy_blas() if blas and first.numbers.name == "f32" else ""
    files["bench.c"] = program(list(plans.values()))
    arguments = (str(rounds), *([library] if library else []))
    outcome = build_and_run(ready, files, (*sources, "bench.c"), arguments=arguments, libraries=("-ldl", "-DNDEBUG"))
    if outcome.returncode != 0:
        raise NotMeasurable(f"the timing program failed: {outcome.error.strip()[:500] or outcome.returncode}")
    names = {plan.name: label for label, plan in plans.items()} | {"blas": BLAS}
    lines = [line.split() for line in outcome.output.decode().splitlines()]
    return {names[line[0]]: [float(word) for word in line[1:]] for line in lines}


def program(plans: Sequence[Plan]) -> str:
    """The C of a timing program for plans of one product."""
    m, n, k = plans[0].product.shape
    numbers = plans[0].numbers
    return fill(
        "bench.c",
        {
            "M": m,
            "N": n,
            "K": k,
            "INPUT": C_TYPES[numbers.word(INPUTS)],
            "WEIGHT": C_TYPES[numbers.word(WEIGHTS)],
            "SUM": C_TYPES[numbers.result],
            "RESULT": plans[0].c_type(OUTPUTS),
            "INCLUDES": "\n".join(f'#include "{plan.name}.h"' for plan in plans),
            "CALLS": "\n".join(
                f"static void call_{plan.name}(const void *a, const void *b, void *c) {{ {plan.name}(a, b, c{arguments(plan)}); }}"
                for plan in plans
            ),
            "CONTENDERS": ", ".join([*(f'{{"{plan.name}", call_{plan.name}, 1, {{0}}}}' for plan in plans), '{"blas", call_blas, 1, {0}}']),
        },
    )


def summarize(name: str, seconds: Sequence[float], operations: int) -> Measurement:
    """Median with its 95 % interval from order statistics, as giga-operations per second."""
    ordered = sorted(seconds)
    count = len(ordered)
    low, high = _median_interval(count)
    rates = [1e-9 * operations / value for value in (statistics.median(ordered), ordered[high], ordered[low])]
    return Measurement(name, *rates)


def _median_interval(count: int) -> tuple[int, int]:
    """Ranks (from 0) between which the median lies with at least 95 %, by the binomial distribution; the extremes for few samples."""
    from math import comb

    tail, rank = 0.0, 0
    for below in range(count // 2):
        tail += comb(count, below) / 2**count
        if tail > 0.025:
            break
        rank = below + 1
    return max(rank - 1, 0), count - 1 - max(rank - 1, 0)


def numpy_blas() -> str:
    """Path of the BLAS that numpy brings; empty when it has none of its own."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return ""
    folder = Path(spec.origin).parent
    found = [*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")]
    return str(found[0]) if found else ""
