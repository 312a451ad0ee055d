"""What simulations say besides their costs: why one differs from its prediction, and what each unit did when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright.protocol.cost import Cost

from .log import ARRAY, FRONT, LOADS, LOOP, MVIN, MVOUT, PRELOAD_ALONE, STEP, STORES, Span
from .timing import Outcome

#: Causes that are worth a word, as a share of the cycles, and how many are named.
SHARE, MOST = 0.005, 3
UNITS = {FRONT: "loops", LOADS: "load", ARRAY: "array", STORES: "store"}
#: Thread numbers that a unit has.
LANES = 1000
DID = {LOOP: "loop", MVIN: "mvin", STEP: "step", PRELOAD_ALONE: "preload alone", MVOUT: "mvout"}


def reason(predicted: Cost, outcome: Outcome) -> str:
    """Why a simulation takes longer, or less, than was predicted: what the array did instead of computing, the largest first."""
    array = outcome.attribution["array"]
    lost = sorted(((cycles, cause) for cause, cycles in array.items() if cause != "compute"), reverse=True)
    named = [f"{100 * cycles / outcome.cycles:.1f} % {cause}" for cycles, cause in lost[:MOST] if cycles >= SHARE * outcome.cycles]
    said = f"array: {', '.join(named)}" if named else "the array computes all the time"
    if outcome.cycles < predicted.cycles and predicted.bottleneck:
        said += f"; predicted: bound by {predicted.bottleneck}"
    return said


def timeline(layers: Iterable[tuple[str, Outcome]]) -> dict[str, Any]:
    """A trace for Chrome or Perfetto: a process per layer, threads per unit, a microsecond per cycle."""
    events: list[dict[str, Any]] = []
    for process, (name, outcome) in enumerate(layers):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
        lanes: dict[int, list[int]] = {unit: [] for unit in UNITS}
        for span in outcome.spans:
            events.append(_event(process, span, _lane(lanes[span.unit], span)))
        for unit, used in lanes.items():
            for lane in range(len(used)):
                named = {"name": UNITS[unit] + (f" {lane + 1}" if len(used) > 1 else "")}
                events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": unit * LANES + lane, "args": named})
        for said, causes in outcome.attribution.items():
            shares = {cause: cycles for cause, cycles in causes.items() if cycles}
            events.append({"ph": "i", "s": "p", "name": f"{said}: all cycles", "pid": process, "ts": outcome.cycles, "args": shares})
    return {"displayTimeUnit": "ns", "traceEvents": events}


def _lane(ends: list[int], span: Span) -> int:
    """The first thread of the unit that is free by then: several mvins are under way at once."""
    for lane, end in enumerate(ends):
        if end <= span.start:
            ends[lane] = span.end
            return lane
    ends.append(span.end)
    return len(ends) - 1


def _event(process: int, span: Span, lane: int) -> dict[str, Any]:
    size = f" {span.rows} x {span.cols}" if span.rows else ""
    return {
        "ph": "X", "name": DID[span.what] + size, "pid": process, "tid": span.unit * LANES + lane, "ts": span.start,
        "dur": span.end - span.start, "args": {"command": span.number},
    }  # fmt: skip
