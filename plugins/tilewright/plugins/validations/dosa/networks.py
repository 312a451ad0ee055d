"""DOSA's four networks: unique layers with their repetitions.

``workloads.json.gz`` holds the layer tables of ucb-bar/dosa (BSD-2-Clause, notice beside it): a list of layers per network, each with a
name, a count, the seven bounds and the strides of P (``Wstride``) and Q (``Hstride``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilewright.protocol import validation
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.workload import Operator, Workload, conv2d

DATA = Path(__file__).with_name("workloads.json.gz")


def networks(path: Path, names: tuple[str, ...]) -> list[Workload]:
    """The named networks of a file (all of them where none is named); `InvalidInput` names file, network and what is wrong."""
    try:
        tables: dict[str, list[dict[str, Any]]] = json.loads(validation.read(path))
    except ValueError as error:
        raise InvalidInput(f"{path}: not JSON: {error}") from None
    if not isinstance(tables, dict) or not tables:
        raise InvalidInput(f"{path}: expected an object with a list of layers per network")
    for name in names:
        if name not in tables:
            raise InvalidInput(f"option networks: {name!r} is not in {path}{suggest(name, tables)}")
    return [_network(path, name, tables[name]) for name in names or tables]


def _network(path: Path, name: str, layers: list[dict[str, Any]]) -> Workload:
    try:
        items = [(layer["name"], operator(layer)) for layer in layers for _ in range(layer["count"])]
    except (KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path}: {name}: {type(error).__name__}: {error}, expected name, count, R S P Q C K N, Wstride, Hstride"
        ) from None
    return Workload.build(name, items, source="ucb-bar/dosa")


def operator(layer: dict[str, Any]) -> Operator:
    """The convolution of a layer."""
    bounds: dict[str, Any] = {dim.lower(): layer[dim] for dim in "RSPQCKN"}
    return conv2d(**bounds, stride=(layer["Wstride"], layer["Hstride"]))
