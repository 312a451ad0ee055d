"""What a job's `Analysis` asks for: a workload per setting, counted under a convention, placed on machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import ProfileJob
from tilewright.protocol.passes import Loader, generation
from tilewright.protocol.plugin import Convention, Options
from tilewright.protocol.profile import Analysis, Counted, Given, Layer, Point, Prediction, Row, shape
from tilewright.protocol.workload import MULTIPLY_ACCUMULATE, Node, Workload
from tilewright.services.runtime.host import Host, check_options

from .generating import Key, times
from .placing import predictions
from .tiling import tiled_bytes

#: What a contraction is called in rows.
CONTRACTION = "contraction"
#: Options that say which pass of a generation it is.
PASS = ("seq", "ctx", "decode")


class Sent:
    """A frontend that has what the client loaded itself, and nothing else."""

    def __init__(self, given: Sequence[Given]) -> None:
        self._given = given

    def load(self, source: str, options: Options) -> Workload:
        """The workload that was sent for these options; `InvalidInput` when there is none."""
        for each in self._given:
            fits = all(options.get(name) == value for name, value in each.setting.items())
            if fits and ("ctx" in each.setting) == ("ctx" in options):
                return each.workload
        raise InvalidInput(f"analysis.given: no workload of {source} at {options}, expected one for every pass of a generation")


def points(
    job: ProfileJob, analysis: Analysis, workload: Workload, loader: Loader | None, target: Architecture, host: Host
) -> tuple[Point, ...]:
    """One point per setting; `InvalidInput` for settings that the frontend or the convention does not have.

    Without a `loader` everything that is counted was sent by the client.
    """
    convention: Convention = host.plugin("conventions", analysis.convention)
    check_options("conventions", analysis.convention, convention.options, analysis.convention_options)
    if analysis.generate:
        loader = loader or Loader(Sent(analysis.given), job.model)
        return tuple(_generated(job, analysis, setting, convention, loader, target, host) for setting in analysis.settings())
    made = []
    for setting, each in _workloads(job, analysis, workload, convention, loader):
        host.alive()
        items = convention.count(each, analysis.convention_options)
        counted = table(each, items, analysis, target)
        made.append(Point(setting, counted.rows, layers=counted.layers))
    return tuple(made)


def _workloads(
    job: ProfileJob, analysis: Analysis, workload: Workload, convention: Convention, loader: Loader | None
) -> list[tuple[dict[str, int], Workload]]:
    if analysis.given:
        return [(given.setting, given.workload) for given in analysis.given]
    settings = analysis.settings()
    if not analysis.sweep or loader is None:
        return [({}, workload)]
    asked = [analysis.asked(job.options, setting, any_length=convention.any_length) for setting in settings]
    loader.ahead(asked)
    return [(setting, loader(options)) for setting, options in zip(settings, asked, strict=True)]


def _generated(
    job: ProfileJob, analysis: Analysis, setting: dict[str, int], convention: Convention, loader: Loader, target: Architecture, host: Host
) -> Point:
    def count(workload: Workload) -> Sequence[Counted]:
        host.alive()
        return convention.count(workload, analysis.convention_options)

    options = analysis.asked(job.options, setting, any_length=convention.any_length)
    rest = {name: value for name, value in options.items() if name not in PASS}
    last, items = generation(loader, count, options, analysis.generate)
    passes = [each for each in loader.loaded if {name: value for name, value in each[0].items() if name not in PASS} == rest]
    prompt = [each for each in passes if "ctx" not in each[0] and each[0].get("seq") == options.get("seq")]
    steps = [each for each in passes if "ctx" in each[0]]
    timed = times(
        [*steps, *(prompt if "seq" in options else [])], count, {(item.node, item.kind) for item in items}, target, analysis.machines
    )
    # Steps differ in size, so that what tiles make of them is not that of any one operator: no traffic with a capacity.
    counted = table(last, items, timed=timed)
    return Point(setting, counted.rows, "generation", analysis.generate, counted.layers)


class Table(NamedTuple):
    """What was counted, by operator and by layer."""

    rows: tuple[Row, ...]
    layers: tuple[Layer, ...]


def table(
    workload: Workload,
    items: Sequence[Counted],
    analysis: Analysis = Analysis(),  # noqa: B008 (immutable)
    target: Architecture | None = None,
    timed: Mapping[Key, tuple[Prediction, ...]] | None = None,
) -> Table:
    """Nodes of one operator, class and figures are one row, parts of the same rows are one layer; times are `timed`, or the target's."""
    nodes = {node.id: node for node in workload.nodes}
    groups: dict[tuple[object, ...], list[Counted]] = {}
    for item in items:
        node = nodes.get(item.node)
        groups.setdefault((None if node is None else node.operator, msgspec.structs.replace(item, node="")), []).append(item)
    rows = []
    for group in groups.values():
        row = _row(workload, group, nodes.get(group[0].node), analysis, target)
        rows.append(row if timed is None else msgspec.structs.replace(row, predictions=timed.get((group[0].node, group[0].kind), ())))
    places = {(item.node, item.kind): at for at, group in enumerate(groups.values()) for item in group}
    return Table(tuple(rows), tuple(_layers(items, nodes, rows, places)))


def _row(workload: Workload, group: Sequence[Counted], node: Node | None, analysis: Analysis, target: Architecture | None) -> Row:
    item = group[0]
    operator = None if node is None else workload.operators[node.operator]
    return Row(
        name=item.node if node is None else node.module or node.id,
        kind=item.kind,
        function="" if operator is None else CONTRACTION if operator.function == MULTIPLY_ACCUMULATE else operator.function,
        shape="" if operator is None else shape(operator),
        count=len(group),
        flops=item.flops,
        read_bytes=item.read_bytes,
        write_bytes=item.write_bytes,
        tiled_bytes=tiled_bytes(operator, analysis.capacity_bytes) if operator is not None and analysis.capacity_bytes else None,
        external_bytes=item.external_bytes,
        cycles=item.cycles,
        predictions=() if operator is None or target is None else predictions(operator, item, target, analysis.machines),
    )


def _layers(items: Sequence[Counted], nodes: dict[str, Node], rows: Sequence[Row], places: dict[tuple[str, str], int]) -> list[Layer]:
    """Layers in order; those of the same rows are one. None where every operator would be one."""
    parts: dict[str, Counter[int]] = {}
    for item in items:
        node = nodes.get(item.node)
        name = part_of(item.node.removeprefix("prompt: ") if node is None else node.module)
        parts.setdefault(name, Counter())[places[item.node, item.kind]] += 1
    equal: dict[frozenset[tuple[int, int]], list[str]] = {}
    for name, held in parts.items():
        equal.setdefault(frozenset(held.items()), []).append(name)
    if len(parts) in (1, len(items)):
        return []
    return [_layer(names, [(rows[at], count) for at, count in held]) for held, names in equal.items()]


def part_of(module: str) -> str:
    """The outermost numbered module that a module is in (``encoder.layer.3``), or itself."""
    words = module.replace("/", ".").strip(".").split(".")
    at = next((at for at, word in enumerate(words) if word.isdigit()), len(words) - 1)
    return ".".join(words[: at + 1])


def _layer(names: Sequence[str], held: Sequence[tuple[Row, int]]) -> Layer:
    def total(name: str) -> float:
        return math.fsum(count * getattr(row, name) for row, count in held)

    return Layer(names[0], len(names), total("flops"), total("read_bytes"), total("write_bytes"), tuple(_together(held)))


def _together(held: Sequence[tuple[Row, int]]) -> list[Prediction]:
    """Times of operators one after another, where all have one."""
    if any(not row.predictions for row, _ in held):
        return []
    found = []
    for at, first in enumerate(held[0][0].predictions):
        shares: dict[str, float] = {}
        for row, count in held:
            each = row.predictions[at]
            shares[each.bound_by] = shares.get(each.bound_by, 0.0) + count * each.seconds
        found.append(Prediction(first.machine, math.fsum(shares.values()), max(shares, key=lambda name: shares[name])))
    return found
