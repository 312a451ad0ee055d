"""What a simulation says of itself: reasons for gaps, and timelines that tools can draw."""

import itertools
import json
from collections import defaultdict

from tilewright.plugins.simulators.gemmini.account import reason
from tilewright.plugins.simulators.gemmini.timing import Outcome
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Cost, LatencyRow
from tilewright.protocol.plugin import Budget, SimRequest
from tilewright.testing import samples


def outcome(cycles, **array):
    return Outcome(cycles, {}, {"array": array})


def test_the_largest_losses_are_named():
    predicted = Cost("timeloop/1", "analytical", 800, latency=(LatencyRow("MAC", 800),))
    said = reason(predicted, outcome(1000, compute=800, drain=20, weights=50, config=1, **{"bank conflict": 129}))
    assert said == "array: 12.9 % bank conflict, 5.0 % weights, 2.0 % drain"
    assert reason(predicted, outcome(800, compute=799, config=1)) == "the array computes all the time"
    assert reason(predicted, outcome(700, compute=700)).endswith("predicted: bound by MAC")


def test_every_simulated_schedule_has_a_reason():
    architecture = registry.load("targets", "gemmini").architecture()
    schedules = tuple(samples.schedule(samples.OPERATORS[name], architecture) for name in ("matmul", "conv"))
    result = registry.load("simulators", "gemmini").run(SimRequest(schedules, architecture), HostContext("simulators", "gemmini", Budget()))
    assert len(result.reasons) == 2
    assert all(result.reasons)


def test_a_timeline_shows_every_command_and_no_thread_does_two_things_at_once():
    architecture = registry.load("targets", "gemmini").architecture()
    schedules = [(name, samples.schedule(samples.OPERATORS[name], architecture)) for name in ("matmul", "conv")]
    simulator = registry.load("simulators", "gemmini")
    made = json.loads(json.dumps(simulator.timeline(schedules, architecture, {"latency": 60})))
    spans = [event for event in made["traceEvents"] if event["ph"] == "X"]
    names = {event["args"]["name"] for event in made["traceEvents"] if event["ph"] == "M"}
    assert {"matmul", "conv", "array"} <= names
    threads = defaultdict(list)
    for event in spans:
        threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for busy in threads.values():
        ordered = sorted(busy)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ordered))
    named = {event["tid"] for event in made["traceEvents"] if event["ph"] == "M" and event["name"] == "thread_name"}
    assert {event["tid"] for event in spans} <= named
    (cost, _) = simulator.run(
        SimRequest(tuple(schedule for _, schedule in schedules), architecture, {"latency": 60}),
        HostContext("simulators", "gemmini", Budget()),
    ).costs
    assert max(event["ts"] for event in made["traceEvents"] if event["ph"] == "i" and event["pid"] == 0) == cost.cycles
