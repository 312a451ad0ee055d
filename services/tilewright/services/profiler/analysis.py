"""What a job's `Analysis` asks for: a workload per setting, counted under a convention, placed on machines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import msgspec

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import ProfileJob
from tilewright.protocol.plugin import Convention, Options
from tilewright.protocol.profile import Analysis, Counted, Machine, Point, Prediction, Row, shape
from tilewright.protocol.steps import summed
from tilewright.protocol.workload import MULTIPLY_ACCUMULATE, Operator, Workload
from tilewright.services.runtime.host import Host, check_options

from .machines import predict
from .roofline import on_target
from .tiling import tiled_bytes

#: Most settings of one job.
MOST_POINTS = 256
#: What a contraction is called in rows.
CONTRACTION = "contraction"
Load = Callable[[Options], Workload]


def points(job: ProfileJob, analysis: Analysis, workload: Workload, load: Load, target: Architecture, host: Host) -> tuple[Point, ...]:
    """One point per setting; `InvalidInput` for settings that the frontend or the convention does not have."""
    convention: Convention = host.plugin("conventions", analysis.convention)
    check_options("conventions", analysis.convention, convention.options, analysis.convention_options)
    made = []
    for setting, each in _settings(job, analysis, workload, load, convention):
        host.alive()
        made.append(_point(job, analysis, setting, each, convention, load, target))
    return tuple(made)


def _settings(
    job: ProfileJob, analysis: Analysis, workload: Workload, load: Load, convention: Convention
) -> Iterator[tuple[dict[str, int], Workload]]:
    if analysis.given:
        for given in analysis.given:
            yield given.setting, given.workload
        return
    if not analysis.sweep:
        yield {}, workload
        return
    combinations = list(itertools.product(*analysis.sweep.values()))
    if len(combinations) > MOST_POINTS:
        raise InvalidInput(f"sweep: {len(combinations)} combinations, expected at most {MOST_POINTS}")
    for values in combinations:
        setting = dict(zip(analysis.sweep, values, strict=True))
        yield setting, load(asked(job.options, setting, analysis, convention))


def asked(options: Options, setting: dict[str, int], analysis: Analysis, convention: Convention) -> Options:
    """The frontend's options at a setting; conventions that ignore how many positions a model has give it as many as it takes."""
    together: Options = {**options, **setting}
    lengths = [value for name in ("seq", "ctx") if isinstance(value := together.get(name), int)]
    if convention.any_length and lengths and "positions" not in together:
        together["positions"] = max(lengths) + analysis.generate
    return together


def _point(
    job: ProfileJob,
    analysis: Analysis,
    setting: dict[str, int],
    workload: Workload,
    convention: Convention,
    load: Load,
    target: Architecture,
) -> Point:
    if not analysis.generate:
        items = convention.count(workload, analysis.convention_options)
        return Point(setting, rows(workload, items, analysis, target))
    if job.workload is not None or analysis.given:
        raise InvalidInput(f"generate: {analysis.generate}, expected a model that the service loads itself (by name)")
    options = asked(job.options, setting, analysis, convention)
    prompt = options.pop("seq", 0)
    assert isinstance(prompt, int)

    def step(context: int) -> Workload:
        return load({**options, "decode": True, "ctx": context})

    def count(context: int) -> Sequence[Counted]:
        return convention.count(step(context), analysis.convention_options)

    first, last = (prompt + 1, prompt + analysis.generate - 1) if prompt else (1, analysis.generate)
    items = summed(count, first, last)
    if prompt:
        before = convention.count(load({**options, "seq": prompt}), analysis.convention_options)
        known = {item.node: item for item in items}
        items = [_plus(item, known.pop(item.node, None)) for item in before] + list(known.values())
    # Steps differ in size, so that what tiles and roofs make of them is not that of any one operator: sums only.
    return Point(setting, rows(step(last) if last >= first else workload, items), "generation", analysis.generate)


def _plus(one: Counted, other: Counted | None) -> Counted:
    if other is None:
        return one
    figures = {}
    for name in ("flops", "read_bytes", "write_bytes", "external_bytes", "cycles"):
        x, y = getattr(one, name), getattr(other, name)
        figures[name] = None if x is None or y is None else x + y
    return msgspec.structs.replace(one, **figures)


def rows(
    workload: Workload,
    items: Sequence[Counted],
    analysis: Analysis = Analysis(),  # noqa: B008 (immutable)
    target: Architecture | None = None,
) -> tuple[Row, ...]:
    """Nodes of one operator, class and figures are one row; times come with a target."""
    nodes = {node.id: node for node in workload.nodes}
    groups: dict[tuple[object, ...], list[Counted]] = {}
    for item in items:
        node = nodes.get(item.node)
        groups.setdefault((None if node is None else node.operator, msgspec.structs.replace(item, node="")), []).append(item)
    made = []
    for group in groups.values():
        item, node = group[0], nodes.get(group[0].node)
        operator = None if node is None else workload.operators[node.operator]
        made.append(
            Row(
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
                predictions=() if operator is None or target is None else _predictions(operator, item, target, analysis.machines),
            )
        )
    return tuple(made)


def _predictions(operator: Operator, item: Counted, target: Architecture, machines: Sequence[Machine]) -> tuple[Prediction, ...]:
    return (on_target(operator, target), *(predict(operator, item.flops, item.bytes, each) for each in machines))
