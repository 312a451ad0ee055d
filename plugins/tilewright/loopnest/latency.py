"""Cycles: compute and every level run in parallel and the slowest decides, unless a convention says otherwise."""

from __future__ import annotations

from .accesses import Traffic
from .arrays import Array
from .nest import Nest, product
from .problem import Problem
from .traffic import Loops, runs


def compute_cycles(nest: Nest) -> Array:
    """Cycles that computing takes: one per step, plus the array's own overhead where the convention counts it, [B]."""
    xp, problem = nest.xp, nest.problem
    if not problem.operator.is_contraction:
        unit = problem.architecture.special_function_unit
        assert unit is not None
        return xp.full(-(-problem.operator.iterations * problem.operator.passes // unit.lanes), nest.steps)
    if problem.conventions.array == "none":
        return nest.steps
    compute = problem.architecture.compute
    folds = runs(nest, Loops(nest), problem.shapes[stationary(problem)])
    extra = array_overhead(compute.mesh_y, compute.mesh_x, prefetch=problem.conventions.array == "systolic-prefetch")
    return nest.steps + folds * extra - 1


def array_overhead(rows: int, columns: int, *, prefetch: bool = False) -> int:
    """Cycles per stationary tile beyond one per streamed row in a weight-stationary array (SCALE-Sim's closed form).

    Loading the weights takes one cycle per row unless the next ones are prefetched; filling and draining the skewed
    array takes ``rows + columns - 2``. A whole run takes one cycle less than the sum over its tiles.
    """
    return (0 if prefetch else rows) + rows + columns - 2


def stationary(problem: Problem) -> int:
    """The operand that a weight-stationary array holds: ``Weights``, or the first operand when there is none."""
    operands = [t for t in range(len(problem.tensors)) if t != problem.output]
    return next((t for t in operands if problem.tensors[t] == "Weights"), operands[0])


def level_cycles(nest: Nest, traffic: Traffic, computing: Array) -> list[Array]:
    """Cycles that each level needs at its bandwidths, [B] each; as many as computing takes for a level without any.

    In the reference tool's order of operations, so that its double roundings are reproduced: demands in words per
    cycle and instance, the tightest ratio of bandwidth to demand, then the compute cycles divided by that slowdown.
    """
    xp = nest.xp
    steps = xp.floats(computing)
    exact = nest.problem.conventions.latency == "roofline"
    cycles = []
    for i, level in enumerate(nest.problem.architecture.levels):
        if level.read_bandwidth is None and level.write_bandwidth is None and level.shared_bandwidth is None:
            cycles.append(computing)
            continue
        scale = 0.0 * steps + 1.0 if exact else steps
        read = write = 0.0 * steps
        for t in range(len(nest.problem.tensors)):
            read = read + traffic.reads[i][t] / scale
            write = write + (traffic.fills[i][t] + traffic.updates[i][t]) / scale
        ports = (level.read_bandwidth, read), (level.write_bandwidth, write), (level.shared_bandwidth, read + write)
        limits = [(bandwidth, demand) for bandwidth, demand in ports if bandwidth is not None]
        if exact:
            busy = 0 * computing
            for bandwidth, words in limits:
                busy = xp.maximum(busy, xp.ceil(words / bandwidth))
            cycles.append(busy)
            continue
        slowdown = 0.0 * steps + 1.0
        for bandwidth, demand in limits:
            slowdown = xp.minimum(slowdown, xp.ratio(bandwidth, demand))
        cycles.append(xp.ceil(steps / slowdown))
    return cycles


def first_load(nest: Nest, traffic: Traffic, keep: list[list[Array]], busy: Array) -> list[tuple[str, Array]]:
    """What ZigZag adds to the busy cycles, [B] each: (name, cycles).

    * first load: the longest of the times that the outermost level needs to send each operand's first tiles inward;
    * stall: what the outermost level still has to move, beyond the busy cycles, less one; operands that are sent once were
      loaded before; all others count whole, and so does the written tensor; separate ports work side by side;
    * array fill: used rows plus used columns of the array.

    This reproduces ZigZag wherever weight tiles leave room to load the next ones meanwhile; it has no formula for tiles that do not.
    """
    xp, problem = nest.xp, nest.problem
    top = len(keep) - 1
    level = problem.architecture.levels[top]
    reading, writing = level.read_bandwidth or level.shared_bandwidth, level.write_bandwidth or level.shared_bandwidth
    zero = 0 * busy
    load, reads, writes = zero, xp.floats(zero), xp.floats(zero)
    for t in range(len(problem.tensors)):
        words = traffic.reads[top][t]
        if t == problem.output:
            writes = writes + traffic.updates[top][t]
            reads = reads + words
            continue
        once = _first_words(nest, traffic, keep, t)
        if reading is not None:
            load = xp.maximum(load, xp.ceil(xp.where(keep[top][t], once, zero) / reading))
        reads = reads + xp.where(words > once, words, zero)
    if level.shared_bandwidth is not None:
        moving = (reads + writes) / level.shared_bandwidth
    else:
        moving = xp.maximum(reads / reading if reading else 0.0 * reads, writes / writing if writing else 0.0 * writes)
    stall = xp.maximum(xp.ceil(moving) - busy - 1, zero)
    along_x, along_y = (product(xp, [block[axis] for block in nest.mesh]) for axis in (0, 1))
    fill = along_x + along_y if problem.conventions.array == "none" else zero
    return [("first load", load), ("stall", stall), ("array fill", fill)]


def _first_words(nest: Nest, traffic: Traffic, keep: list[list[Array]], t: int) -> Array:
    """Words that the outermost level sends for the first tiles of a tensor, [B]."""
    xp = nest.xp
    words = xp.full(1, nest.steps)
    for i in range(len(keep)):
        asked = traffic.distinct[i][t] * words
        words = xp.where(keep[i][t], traffic.tiles[i][t], asked)
    return asked
