"""One model at one setting, and at many: a sweep over lengths or batches is one full trace and two of a single layer.

Every bound and every extent of an operator is an affine function of the length (or of the batch). The first setting is traced in
full; the same model with one layer is traced at the next integer and at the last setting. What the three say of a node must lie on
a line, node by node; then the other settings follow. A model for which that fails anywhere (windows that are filled up, layers
that differ) is traced in full at every setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from typing import Any

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, TilewrightError
from tilewright.protocol.workload import Dim, Edge, Node, Operator, Rank, Tensor, Workload

from .inputs import cache_name, inputs
from .models import Plan, build, configure

#: Fields of a plan in which shapes are affine.
SWEPT = ("seq", "batch", "past")
Key = tuple[str, str]


#: The last trace, under what it is of: whoever sweeps has mostly just traced the first setting.
_last: dict[str, Workload] = {}


def trace(plan: Plan) -> Workload:
    """One forward pass, recorded."""
    key = json.dumps(plan, default=str)
    if key not in _last:
        found = _trace(plan)
        _last.clear()
        _last[key] = found
    return _last[key]


def _trace(plan: Plan) -> Workload:
    recorder = registry.load("frontends", "torch")
    try:
        return _recorded(plan, recorder, run=False)
    except _Unfit:  # its cache is not shaped as most are: it is filled by a pass over the tokens before
        return _recorded(plan, recorder, run=True)


class _Unfit(Exception):
    """A pass that fails with the cache that was made for it."""


def _recorded(plan: Plan, recorder: Any, *, run: bool) -> Workload:
    with prepared(plan, recorder, run=run) as (model, keywords, bits):
        try:
            workload: Workload = recorder.trace(plan.name, model, (), keywords, bits=plan.bits or bits, source=plan.said)
        except TilewrightError:
            raise
        except Exception as error:  # whatever a model does not like
            if plan.past and not run:
                raise _Unfit from error
            raise InvalidInput(f"{plan.name}: cannot be run: {type(error).__name__}: {error}") from error
        cache = keywords.get(cache_name(model))
        if cache is not None and cache.get_seq_length() != (plan.past or 0) + 1:
            raise InvalidInput(f"decode: {plan.name} ({type(model).__name__}) does not use a key/value cache, expected a decoder")
    return workload


@contextmanager
def prepared(plan: Plan, recorder: Any, *, run: bool = False) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """A model and its inputs as fake tensors, and the width of a word where it is not that of its type (else 0).

    `run`: a decoder's cache is filled by running it, whatever its configuration says.
    """
    config, kind = configure(plan)
    model, bits = build(config, kind, plan.attention)
    with recorder.fake():
        try:
            made = model.to_empty(device="cpu")
            made.tie_weights()
            keywords = inputs(made, plan, run=run)
        except TilewrightError:
            raise
        except Exception as error:  # whatever a model does not like
            raise InvalidInput(f"{plan.name}: cannot be given its inputs: {type(error).__name__}: {error}") from error
        yield made, keywords, bits


def forward(plan: Plan, watch: AbstractContextManager[Any], *, device: str) -> None:
    """One pass inside of `watch`, on fake tensors of the CPU or on the meta device."""
    import torch

    if device == "cpu":
        with prepared(plan, registry.load("frontends", "torch")) as (model, keywords, _), torch.no_grad(), watch:
            model(**keywords)
        return
    model, _ = build(*configure(plan), plan.attention)
    with torch.device(device), torch.no_grad():
        keywords = inputs(model, plan)
        with watch:
            model(**keywords)


def many(plans: Sequence[Plan]) -> list[Workload]:
    """All of them."""
    field = _swept(plans)
    if field is None:
        return [trace(plan) for plan in plans]
    order = sorted(range(len(plans)), key=lambda at: int(getattr(plans[at], field)))
    found = _along(field, [plans[at] for at in order])
    return [found[order.index(at)] for at in range(len(plans))]


def _swept(plans: Sequence[Plan]) -> str | None:
    """The one field in which at least three plans differ."""
    first = plans[0]
    differing = {name for plan in plans for name in plan._fields if getattr(plan, name) != getattr(first, name)}
    differing -= {"decoder_seq"} if all(plan.decoder_seq == plan.seq for plan in plans) else set()
    if len(plans) < 3 or len(differing) != 1 or not differing <= set(SWEPT):
        return None
    return differing.pop()


def _along(field: str, plans: Sequence[Plan]) -> list[Workload]:
    """Workloads at rising values of a field."""
    whole = trace(plans[0])
    try:
        lines = _lines(field, plans, whole)
        return [whole, *(_at(int(getattr(plan, field)), plan, whole, lines) for plan in plans[1:])]
    except (KeyError, InvalidInput, _Crooked):  # layers that differ, a model that cannot be shortened, numbers that are not on a line
        return [whole, *(trace(plan) for plan in plans[1:])]


def _lines(field: str, plans: Sequence[Plan], whole: Workload) -> Lines:
    low, high = int(getattr(plans[0], field)), int(getattr(plans[-1], field))
    near = _by_key(trace(_single(plans[0], field, low + 1)))
    far = _by_key(trace(_single(plans[-1], field, high)))
    lines: Lines = {}
    for node in whole.nodes:
        operator, key = whole.operators[node.operator], _key(node.id)
        if (key, operator) not in lines:
            lines[key, operator] = _Line(low, high, operator, near[key], far[key])
    return lines


def _single(plan: Plan, field: str, value: int) -> Plan:
    """The same with one layer, at a value."""
    changed: dict[str, Any] = {"layers": 1, field: value}
    if field == "seq":
        changed["decoder_seq"] = value
    return plan._replace(**changed)


def _key(node: str) -> Key:
    """A node's place in its layer, whichever layer it is."""
    module, _, repeat = node.partition("#")
    return ".".join("*" if part.isdigit() else part for part in module.split(".")), repeat


def _by_key(workload: Workload) -> dict[Key, Operator]:
    """Operator at each place of a model with one layer."""
    return {_key(node.id): workload.operators[node.operator] for node in workload.nodes}


class _Crooked(Exception):
    """Three operators that are not on one line."""


class _Line:
    """An operator as an affine function of what is swept."""

    def __init__(self, low: int, high: int, first: Operator, near: Operator, last: Operator) -> None:
        self._low, self._high = low, high
        self._first, self._last = first, last
        if self.at(low + 1) != near:
            raise _Crooked

    def at(self, value: int) -> Operator:
        """The operator at a value; `_Crooked` when its numbers are not whole there, or the ends differ in more than numbers."""
        share = Fraction(value - self._low, self._high - self._low)
        first, last = self._first, self._last
        if len(first.dims) != len(last.dims) or len(first.tensors) != len(last.tensors):
            raise _Crooked
        dims = tuple(Dim(x.name, _between(x.bound, y.bound, share)) for x, y in zip(first.dims, last.dims, strict=True))
        tensors = tuple(_tensor(x, y, share) for x, y in zip(first.tensors, last.tensors, strict=True))
        made = msgspec.structs.replace(first, dims=dims, tensors=tensors)
        if value == self._high and made != last:
            raise _Crooked
        return made


Lines = dict[tuple[Key, Operator], _Line]


def _tensor(first: Tensor, last: Tensor, share: Fraction) -> Tensor:
    if len(first.ranks) != len(last.ranks):
        raise _Crooked
    ranks = tuple(
        Rank(
            x.terms,
            _between(x.offset, y.offset, share),
            None if x.extent is None or y.extent is None else _between(x.extent, y.extent, share),
        )
        for x, y in zip(first.ranks, last.ranks, strict=True)
    )
    return msgspec.structs.replace(first, ranks=ranks)


def _between(first: int, last: int, share: Fraction) -> int:
    value = first + (last - first) * share
    if value.denominator != 1:
        raise _Crooked
    return int(value)


def _at(value: int, plan: Plan, whole: Workload, lines: Lines) -> Workload:
    """The workload at a value: the nodes and edges of the traced one with operators of their own."""
    moved = {role: line.at(value) for role, line in lines.items()}
    operators: dict[Operator, int] = {}
    nodes: list[Node] = []
    made: dict[str, Operator] = {}
    for node in whole.nodes:
        operator = moved[_key(node.id), whole.operators[node.operator]]
        nodes.append(msgspec.structs.replace(node, operator=operators.setdefault(operator, len(operators))))
        made[node.id] = operator
    edges = tuple(_edge(edge, made) for edge in whole.edges)
    return msgspec.structs.replace(whole, operators=tuple(operators), nodes=tuple(nodes), edges=edges, source=plan.said)


def _edge(edge: Edge, made: dict[str, Operator]) -> Edge:
    """An edge with the shape of what is written."""
    if not edge.producer:
        return edge
    operator = made[edge.producer]
    return msgspec.structs.replace(edge, shape=operator.shape(operator.output))
