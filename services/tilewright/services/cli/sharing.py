"""Several models that share one design: their operators become one workload, whose energies and cycles add up."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.workload import Workload

from . import request

if TYPE_CHECKING:
    from .options import RunOptions


def shared(asked: RunRequest, said: RunOptions) -> RunRequest:
    """The request for its model and those of ``--with`` as one workload, read here; `InvalidInput` for a model that is unknown."""
    others = [request.build(dataclasses.replace(said, model=other, beside=()), asked.stages, local=True) for other in said.beside]
    workloads = [
        each.workload or registry.load("frontends", each.frontend).load(each.model, each.frontend_options) for each in (asked, *others)
    ]
    items = [(f"{each.name}.{node.module or node.id}", each.operators[node.operator]) for each in workloads for node in each.nodes]
    whole = Workload.build(" + ".join(each.name for each in workloads), items, parameters=sum(each.parameters for each in workloads))
    return msgspec.structs.replace(asked, model=whole.name, workload=whole)
