"""The machines that the publication compares mappers on: its Table V, with four times the PEs, with buffers of twice the size, and with
its network.

Source: Huang et al., "CoSA", ISCA 2021, Table V and figures 8 to 10. Table V does not state everything that a model needs; the rest is
that of the target `simba`. The network: 4 x 4 PEs, 64-bit flits, X-Y routing, multicast (section IV-B).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Network

TABLE_V = {"pes": 16, "accumulation_words": 128, "weight_kib": 4, "input_kib": 8, "global_kib": 128}
NAMES = ("baseline", "8x8 PEs", "larger buffers", "network")
#: PEs on a side of the mesh.
SIDE = 4
FLIT_BITS = 64
#: The level whose children the network joins.
HUB = "GlobalBuffer"


def machine(name: str) -> Architecture:
    """One of `NAMES`."""
    simba = registry.load("targets", "simba")
    sizes = dict(TABLE_V)
    if name == "8x8 PEs":
        sizes["pes"] *= 4
    if name == "larger buffers":
        sizes.update({buffer: 2 * size for buffer, size in TABLE_V.items() if buffer != "pes"})
    found: Architecture = simba.architecture(**sizes)
    if name == "8x8 PEs":
        *inner, dram = found.levels
        ways = {way: 2 * (getattr(dram, way) or 0.0) for way in ("read_bandwidth", "write_bandwidth")}
        doubled = msgspec.structs.replace(dram, **ways)
        found = msgspec.structs.replace(found, levels=(*inner, doubled))
    return _meshed(found) if name == "network" else found


def _meshed(flat: Architecture) -> Architecture:
    """The PEs as a mesh with routers instead of in a row."""

    def square(part: Any) -> Any:
        if part.instances == 1:
            return part
        return msgspec.structs.replace(part, mesh_x=part.instances // SIDE, mesh_y=SIDE)

    levels = [square(level) for level in flat.levels]
    hub = flat.index(HUB)
    levels[hub] = msgspec.structs.replace(levels[hub], network=Network(flit_bits=FLIT_BITS))
    return msgspec.structs.replace(flat, name="simba-network", compute=square(flat.compute), levels=tuple(levels))
