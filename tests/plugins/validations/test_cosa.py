"""``validate cosa`` on the shipped records, and on files that are not; its machines and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright import loopnest as ln
from tilewright.plugins.validations import cosa
from tilewright.plugins.validations.cosa import machines
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, MapRequest, Option
from tilewright.protocol.workload import matmul


def test_shipped_records() -> None:
    report = cosa.Cosa().run(None, {"figures": 0})
    assert (report.cases, report.exact) == (62, 62)
    cycles, energy = report.groups["recorded mapping, cycles"], report.groups["recorded mapping, energy"]
    assert (cycles.cases, cycles.exact, cycles.skipped) == (61, 61, 1)
    assert (energy.cases, energy.exact, energy.skipped) == (61, 61, 1)
    overfull = {name: group.figures for name, group in report.groups.items() if name.startswith("does not fit")}
    # 72448 words where 65536 fit, as Timeloop says of that layer, 5x5 of AlexNet.
    assert overfull == {"does not fit, alexnet _outputs_input.4": {"words too many": 6912.0, "repaired": 1.0}}


def test_a_wrong_objective_is_seen(tmp_path: Path) -> None:
    record = cosa.load(None)[0]
    record["objective"] += 0.5
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(record))
    report = cosa.Cosa().run(str(file), {"machines": "baseline"})
    assert report.exact == 0
    compared = report.groups[f"baseline, {record['network']}"].figures
    assert compared["layers"] == 1
    assert compared["random cycles/cosa"] >= compared["optimal cycles/cosa"] <= 1.0
    assert report.groups["baseline, all"].figures["hybrid cycles/cosa"] >= compared["optimal cycles/cosa"]


@pytest.mark.parametrize("text", ["", "{", '{"kind": "other"}', '{"kind": "polish_edp"}'])
def test_files_without_records(tmp_path: Path, text: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"records\.jsonl"):
        cosa.Cosa().run(str(file), {})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"figures": "some"}, "options.figures: 'some', expected a number of layers, or all"),
        ({"figures": -1}, "options.figures: -1"),
        ({"machines": "baseline,16x16"}, "options.machines: '16x16', expected some of baseline, 8x8 PEs"),
    ],
)
def test_wrong_options(options: dict[str, Option], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        cosa.Cosa().run(None, options)


def test_machines() -> None:
    """Table V and what figures 8 to 10 change of it."""
    base, wide, large, meshed = (machines.machine(name) for name in machines.NAMES)
    assert base.compute.instances == large.compute.instances == meshed.compute.instances == 16 * 64
    assert wide.compute.instances == 64 * 64
    assert wide.levels[-1].read_bandwidth == 2 * (base.levels[-1].read_bandwidth or 0) == 20
    assert [level.capacity_bits for level in large.levels[1:-1]] == [2 * (level.capacity_bits or 0) for level in base.levels[1:-1]]
    hub = meshed.index(machines.HUB)
    assert meshed.fanout(hub) == (4, 4) and base.fanout(hub) == (16, 1)


def test_the_network_takes_its_time() -> None:
    """Inputs of 8 bits go through one port at least once: 64 bits a flit, and a header to every four."""
    operator = matmul(p=64, c=64, k=64)
    problem = ln.Problem(operator, machines.machine("network"), registry.load("targets", "simba").constraints())
    request = MapRequest(operator, problem.architecture, problem.constraints)
    (candidate,) = registry.load("mappers", "cosa").search(request, HostContext("mappers", "cosa", Budget()))
    cost = ln.cost(problem, candidate.mapping)
    network = next(row.cycles for row in cost.latency if row.resource == f"{machines.HUB} network")
    assert network >= 64 * 64 * 8 / 64 * 5 / 4
    assert cost.cycles >= network
