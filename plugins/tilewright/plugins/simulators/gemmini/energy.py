"""Energy: what happened, at the prices of the architecture."""

from __future__ import annotations

from typing import NamedTuple

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.cost import EnergyRow
from tilewright.protocol.errors import InvalidArchitecture
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .machine import Machine


class Price(NamedTuple):
    """What an event costs: an action of a component; `unit` says what is counted, an access moves a block of words."""

    component: str
    action: str
    tensor: str
    #: word: a word each; row: a row of the array's width; beat: a beat of the bus.
    unit: str


#: Events that have a price of their own.
PRICES = {
    "mac": Price("", "compute", "", "word"),
    "register_read": Price("Registers", "read", WEIGHTS, "word"),
    "weight_load": Price("Registers", "fill", WEIGHTS, "word"),
    "scratchpad_read": Price("Scratchpad", "read", INPUTS, "row"),
    "scratchpad_write": Price("Scratchpad", "fill", INPUTS, "row"),
    "accumulator_read": Price("Accumulator", "read", OUTPUTS, "row"),
    "accumulator_write": Price("Accumulator", "update", OUTPUTS, "row"),
    "read_beats": Price("DRAM", "read", INPUTS, "beat"),
    "write_beats": Price("DRAM", "update", OUTPUTS, "beat"),
}
#: Events that are part of others: requests and bytes move in beats.
PART_OF = {"read_requests": "read_beats", "read_bytes": "read_beats", "write_requests": "write_beats", "write_bytes": "write_beats"}


def energy(events: dict[str, int], architecture: Architecture, machine: Machine) -> tuple[EnergyRow, ...]:
    """One row per event that happened; `InvalidArchitecture` names the first one without a price."""
    prices = ln.Prices(architecture)
    words = {"word": 1, "row": machine.dim, "beat": machine.bus_bytes // machine.input_bytes}
    rows = []
    for event, count in {**events, "register_read": events["mac"]}.items():
        if event in PART_OF or not count:
            continue
        price = PRICES.get(event)
        if price is None:
            raise InvalidArchitecture(f"event {event}: happened {count} times, but nothing says what it costs")
        if not price.component:
            each, block, where = prices.compute, 1, f"{architecture.compute.name}.energy_pj"
        else:
            at = architecture.index(price.component)
            each, block = getattr(prices, price.action)[at], architecture.levels[at].block_words
            where = f"{price.component}.{price.action}_energy_pj"
        if not each:
            raise InvalidArchitecture(f"{where}: {each}, but there are {count} of the event {event}; an event must have a price")
        component = price.component or architecture.compute.name
        rows.append(EnergyRow(component, price.action, price.tensor, count * words[price.unit] / block, each))
    return tuple(rows)
