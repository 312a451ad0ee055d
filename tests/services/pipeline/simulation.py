"""A tiny at-least-once world for the pipeline's own step functions: everything that a network and an operator may do, from a seed.

Replicas, workers and clients are coroutines; a scheduler drawn from a seed decides who takes the next step. Between any
two steps a replica or worker may die; a message that is not acknowledged is delivered again, at any time, even while its
first taker is still busy; messages overtake each other; the memory of message ids expires; queues are full or are
purged; runs are cancelled. After a while the faults stop, and then every run must end.

    python -m tests.services.pipeline.simulation 10000      # schedules; prints what happened and the CPU time
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.protocol.errors import Conflict
from tilewright.protocol.messages import Failure, Outcome, RunRequest, Submit
from tilewright.protocol.run import RunState, TaskRecord, bits, closure, members, task_id
from tilewright.protocol.subjects import STAGES, Stage
from tilewright.services.pipeline import reduce as reducer
from tilewright.services.pipeline import step
from tilewright.services.pipeline.reduce import PublishJob
from tilewright.services.pipeline.step import Sent
from tilewright.services.runtime.runs import Stored, cancel_run, digest

#: Scheduler steps during which faults happen, and after which a run that has not ended never will.
FAULTY, PATIENCE = 250, 6000


class Broken(AssertionError):
    """An invariant does not hold."""


class _Pause:
    """Gives the turn back to the scheduler."""

    def __await__(self) -> Generator[None, None, None]:
        yield


PAUSE = _Pause()


@dataclass(frozen=True)
class Scenario:
    """What a run asks for and how each of its tasks ends: ``ok``, ``empty`` (no valid mapping), ``fails``, ``flaky`` (fails at first)."""

    stages: tuple[Stage, ...]
    operators: int
    fate: dict[str, str]

    def outcome(self, task: str, attempt: int) -> Outcome:
        """What a worker says that did the task for the `attempt`-th time."""
        stage = reducer.plan.parse_task(task)[0]
        fate = self.fate.get(task, "ok")
        if fate == "fails" or (fate == "flaky" and attempt == 1):
            return Outcome(stage, "failed", failure=Failure("exception", f"{task} breaks"))
        return Outcome(stage, "done", result=f"{stage}.{task}", answer=f"answer of {task}", cached=attempt > 1)

    def usable(self, task: str) -> int:
        """What the answer of a task holds for later stages."""
        if task == "profile-0":
            return self.operators
        return 0 if self.fate.get(task) == "empty" else 1

    def expected(self) -> tuple[str, dict[str, str]]:
        """Final status and fate of each task that must be recorded, worked out from the rules as a user reads them."""
        fate = {"profile-0": self.fate.get("profile-0", "ok")}
        stages = set(closure(self.stages))
        mapped = [f"map-{i}" for i in range(self.operators)] if fate["profile-0"] == "ok" and "map" in stages else []
        fate |= {task: self.fate.get(task, "ok") for task in mapped}
        good = [task for task in mapped if fate[task] == "ok"]
        if good:
            if "codesign" in stages:
                fate["codesign-0"] = self.fate.get("codesign-0", "ok")
            if "kernel" in stages:
                fate |= {kernel: self.fate.get(kernel, "ok") for kernel in (task.replace("map", "kernel") for task in good)}
            if "simulate" in stages:
                designs = 2 if fate.get("codesign-0") == "ok" else 1
                fate |= {task: self.fate.get(task, "ok") for task in (f"simulate-{i}" for i in range(designs))}
        missing = any(each != "ok" for each in fate.values()) or ("map" in stages and not good)
        goals = set(self.stages) - {"profile"} or {"profile"}
        shown = any(each == "ok" and task.split("-")[0] in goals for task, each in fate.items())
        return "done" if not missing else "partial" if shown else "failed", fate


@dataclass(eq=False)
class Message:
    """One message on a queue."""

    body: tuple[Any, ...]
    taken: bool = False


@dataclass
class World:
    """Queues, states and records, and the rules that no schedule may break."""

    scenarios: dict[str, Scenario]
    states: dict[str, Stored] = field(default_factory=dict)
    records: dict[tuple[str, str], TaskRecord] = field(default_factory=dict)
    runs: list[Message] = field(default_factory=list)
    done: list[Message] = field(default_factory=list)
    jobs: list[Message] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    published: set[tuple[str, str]] = field(default_factory=set)
    forgot: bool = False
    executions: dict[tuple[str, str], int] = field(default_factory=dict)
    full: bool = False
    clock: float = 0.0
    conflicts: int = 0

    def publish(self, queue: list[Message], identity: str, *body: Any) -> None:
        """Publish once, as far as the memory of ids reaches."""
        if identity not in self.seen:
            self.seen.add(identity)
            queue.append(Message(body))

    def write(self, state: RunState, before: RunState | None) -> None:
        """Check that the recorded past is never taken back."""
        if before is not None:
            _check_transition(before, state)
            self.check_sent_again(before, state)
        self.check_records(state)
        for stage in state.stages:
            if any((state.run, task_id(stage.stage, index)) not in self.published for index in members(bits(stage.sent))):
                raise Broken(f"{stage.stage}: a job counts as sent that was never published")
        self.states[state.run] = Stored(state, self.states[state.run].revision + 1 if state.run in self.states else 1)

    def check_sent_again(self, before: RunState, after: RunState) -> None:
        """Check that a job counts as lost only if it is (as long as ids are remembered: a forgotten id may bring an old job back)."""
        for old, new in zip(before.stages, after.stages, strict=True):
            lost = {task_id(new.stage, index) for index in members(bits(old.sent) & ~bits(new.sent))}
            if lost and not self.forgot and any(message.body[0] == after.run and message.body[1] in lost for message in self.jobs):
                raise Broken(f"{new.stage}: a job counts as lost that is queued")

    def check_records(self, state: RunState) -> None:
        """Check that a state says of its tasks what their records say."""
        for stage in state.stages:
            records = [self.records[state.run, task_id(stage.stage, index)] for index in members(bits(stage.done))]
            if (stage.usable, stage.cached) != (sum(each.usable for each in records), sum(each.cached for each in records)):
                raise Broken(f"{stage.stage}: {stage.usable} usable, {stage.cached} cached, but recorded otherwise")
            for bitmap, status in ((stage.done, ("done",)), (stage.failed, ("failed", "cancelled"))):
                for index in members(bits(bitmap)):
                    record = self.records.get((state.run, task_id(stage.stage, index)))
                    if record is None or record.status not in status:
                        raise Broken(f"{stage.stage}-{index} is {status[0]} in the state, but recorded as {record and record.status}")


def _check_transition(before: RunState, after: RunState) -> None:
    if not before.active and (after.status, after.finished) != (before.status, before.finished):
        raise Broken(f"a run that was {before.status} is {after.status}")
    for old, new in zip(before.stages, after.stages, strict=True):
        if old.settled & ~new.settled:
            raise Broken(f"{old.stage}: settled tasks were forgotten")
        if new.generation < old.generation or (old.total >= 0 and new.total != old.total):
            raise Broken(f"{old.stage}: generation or number of tasks went back")
        if (bits(new.done) | bits(new.failed)) & ~bits(new.sent):
            raise Broken(f"{new.stage}: a task is settled that was never sent")
        if bits(new.done) & bits(new.failed):
            raise Broken(f"{new.stage}: a task is done and failed")
        if not before.active and bits(new.sent) & ~(bits(old.sent) | new.settled):
            raise Broken(f"{new.stage}: sent after the run was {before.status}")


class SimulatedPort:
    """`Port` on a `World`; every operation takes one turn."""

    def __init__(self, world: World) -> None:
        self.world = world

    def now(self) -> float:
        self.world.clock += 1.0
        return self.world.clock

    async def read(self, run: str) -> Stored | None:
        await PAUSE
        return self.world.states.get(run)

    async def write(self, state: RunState, revision: int) -> None:
        await PAUSE
        current = self.world.states.get(state.run)
        if (current.revision if current else 0) != revision:
            self.world.conflicts += 1
            raise Conflict(state.run)
        self.world.write(state, current.state if current else None)

    async def record(self, state: RunState, stage: Stage, index: int, outcome: Outcome) -> TaskRecord:
        await PAUSE
        task = task_id(stage, index)
        usable = self.world.scenarios[state.run].usable(task) if outcome.status == "done" else 0
        record = TaskRecord(task, task, outcome.status, outcome.result, outcome.answer, usable, outcome.failure, outcome.cached)
        return self.keep((state.run, task), record)

    def keep(self, key: tuple[str, str], record: TaskRecord) -> TaskRecord:
        return self.world.records.setdefault(key, record)

    async def recorded(self, state: RunState, stage: Stage, index: int) -> TaskRecord | None:
        await PAUSE
        return self.world.records.get((state.run, task_id(stage, index)))

    async def send(self, state: RunState, jobs: Sequence[PublishJob]) -> Sent:
        if not state.active:
            raise Broken(f"jobs of a run that is {state.status}")
        refused = []
        for job in jobs:
            await PAUSE
            task = task_id(job.stage, job.index)
            for need in reducer.plan.inputs(state, task):
                if self.world.records[state.run, need].status != "done":
                    raise Broken(f"{task} is built from {need}, which is not done")
            if self.world.full:
                refused.append(job)
            else:
                self.world.published.add((state.run, task))
                self.world.publish(self.world.jobs, f"{state.run}.{task}.{job.generation}.job", state.run, task, job.generation)
        return Sent(tuple(refused))

    async def tell(self, state: RunState, events: Sequence[Any]) -> None:
        await PAUSE

    async def absent(self, state: RunState) -> dict[Stage, int]:
        await PAUSE
        held = {message.body[:2] for message in self.world.jobs}
        found = {}
        for stage in state.stages:
            missing = sum(1 << i for i in members(stage.outstanding) if (state.run, task_id(stage.stage, i)) not in held)
            if missing:
                found[stage.stage] = missing
        await PAUSE
        return {} if any(message.body[0] == state.run for message in self.world.done) else found


class BlindPort(SimulatedPort):
    """A mutant: writes over whatever is there."""

    async def write(self, state: RunState, revision: int) -> None:
        await PAUSE
        current = self.world.states.get(state.run)
        self.world.write(state, current.state if current else None)


class LastWriterPort(SimulatedPort):
    """A mutant: the last record of a task wins."""

    def keep(self, key: tuple[str, str], record: TaskRecord) -> TaskRecord:
        self.world.records[key] = record
        return record


class ForgetfulPort(SimulatedPort):
    """A mutant: takes a full queue for a success."""

    async def send(self, state: RunState, jobs: Sequence[PublishJob]) -> Sent:
        await super().send(state, jobs)
        return Sent()

    async def absent(self, state: RunState) -> dict[Stage, int]:
        await PAUSE
        return {}


async def _replica_submit(port: SimulatedPort, message: Message) -> None:
    run, request = message.body
    await step.submit(port, run, Submit(request), 0.0)
    await PAUSE
    _ack(port.world.runs, message)


async def _replica_outcome(port: SimulatedPort, message: Message) -> None:
    run, task, outcome = message.body
    stage, index = reducer.plan.parse_task(task)
    if not await step.outcome(port, run, stage, index, outcome):
        raise Broken(f"an outcome of {task} came before the state of its run")
    await PAUSE
    _ack(port.world.done, message)


async def _worker(world: World, message: Message) -> None:
    run, task, generation = message.body
    await PAUSE
    if world.states[run].state.cancelled:
        outcome = Outcome(reducer.plan.parse_task(task)[0], "cancelled")
    else:
        world.executions[run, task] = attempt = world.executions.get((run, task), 0) + 1
        await PAUSE
        outcome = world.scenarios[run].outcome(task, attempt)
    await PAUSE
    world.publish(world.done, f"{run}.{task}.{generation}.{outcome.status}", run, task, outcome)
    await PAUSE
    _ack(world.jobs, message)


def _ack(queue: list[Message], message: Message) -> None:
    if message in queue:
        queue.remove(message)


def draw_scenario(rng: random.Random, *, flaky: bool) -> Scenario:
    """A random request with random fates."""
    stages = STAGES if rng.random() < 0.7 else tuple(rng.sample(STAGES, rng.randint(1, 2)))
    operators = rng.choice((0, 1, 2, 2, 3, 3, 4))
    fate = {}
    tasks = ["codesign-0", "simulate-0", "simulate-1", *(f"{stage}-{i}" for stage in ("map", "kernel") for i in range(operators))]
    for task in tasks:
        if rng.random() < (0.4 if flaky else 0.15):
            fate[task] = rng.choice(("fails", "empty", "flaky", "flaky", "flaky") if flaky else ("fails", "empty"))
            if fate[task] == "empty" and not task.startswith("map"):
                fate[task] = "fails"
    if rng.random() < 0.05:
        fate["profile-0"] = "fails"
    return Scenario(stages, operators, fate)


@dataclass
class Report:
    """What one schedule went through."""

    steps: int = 0
    executions: int = 0
    tasks: int = 0
    conflicts: int = 0
    crashes: int = 0
    redelivered: int = 0
    cancelled: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Add the counts of another schedule."""
        for name in ("steps", "executions", "tasks", "conflicts", "crashes", "redelivered", "cancelled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def simulate(
    seed: int,
    port: type[SimulatedPort] = SimulatedPort,
    scenarios: dict[str, Scenario] | None = None,
    *,
    flaky: bool = False,
    faults: bool = True,
) -> Report:
    """Play one schedule; raises `Broken` when an invariant does not hold or a run does not end.

    Without `faults` there is no reconciler either: only replicas that race each other.
    """
    rng = random.Random(seed)
    cancels = faults and scenarios is None and rng.random() < 0.25
    if scenarios is None:
        scenarios = {f"run{i}": draw_scenario(rng, flaky=flaky) for i in range(rng.choice((1, 1, 2)))}
    world = World(scenarios)
    report = Report()
    for run, scenario in scenarios.items():
        for copy in range(rng.choice((1, 1, 2))):
            world.publish(world.runs, f"{run}.{copy}", run, RunRequest("model", "target", stages=scenario.stages))
    replicas: list[Coroutine[Any, Any, Any] | None] = [None] * rng.choice((1, 2, 3))
    workers: list[Coroutine[Any, Any, Any] | None] = [None] * rng.choice((1, 2, 3))
    faulty = rng.randrange(FAULTY) if faults else 0
    ports = port(world)

    def take(queue: list[Message]) -> Message | None:
        free = [message for message in queue if not message.taken]
        if not free:
            return None
        message = rng.choice(free) if rng.random() < 0.5 else free[0]
        message.taken = True
        return message

    def next_work(slot: int) -> Coroutine[Any, Any, Any] | None:
        if faults and rng.random() < 0.06:
            return step.reconcile(ports, rng.choice(list(scenarios)))
        for queue, handle in rng.sample(((world.runs, _replica_submit), (world.done, _replica_outcome)), 2):
            if (message := take(queue)) is not None:
                return handle(ports, message)
        return None

    def next_job(slot: int) -> Coroutine[Any, Any, Any] | None:
        message = take(world.jobs)
        return _worker(world, message) if message is not None else None

    def fault() -> None:
        nonlocal cancels
        kind = rng.random()
        if kind < 0.35:
            actors = rng.choice((replicas, workers))
            slot = rng.randrange(len(actors))
            if (victim := actors[slot]) is not None:
                victim.close()
                actors[slot] = None
                report.crashes += 1
        elif kind < 0.75:
            redeliver()
        elif kind < 0.8:
            world.seen.clear()
            world.forgot = True
        elif kind < 0.85:
            world.full = not world.full
        elif kind < 0.9 and world.jobs:
            world.jobs.remove(rng.choice(world.jobs))
        elif cancels:
            cancels = False
            replicas.append(cancel_run(ports, rng.choice(list(scenarios)), ports.now()))

    def redeliver() -> None:
        taken = [message for queue in (world.runs, world.done, world.jobs) for message in queue if message.taken]
        if taken:
            rng.choice(taken).taken = False
            report.redelivered += 1

    try:
        while not _over(world, replicas, workers):
            report.steps += 1
            if report.steps > PATIENCE:
                raise Broken(f"seed {seed}: not over after {PATIENCE} steps: {[stored.state.status for stored in world.states.values()]}")
            if report.steps < faulty:
                if rng.random() < 0.12:
                    fault()
            else:
                world.full = False
                # Whoever died with a message in hand gave it back in the end.
                if faults and rng.random() < 0.02:
                    redeliver()
            actors, start = (replicas, next_work) if rng.random() < 0.7 else (workers, next_job)
            slot = rng.randrange(len(actors))
            actor = actors[slot]
            if actor is None:
                actors[slot] = start(slot)
                continue
            try:
                actor.send(None)
            except StopIteration:
                actors[slot] = None
    finally:
        for actor in (*replicas, *workers):
            if actor is not None:
                actor.close()
    _check_end(world, report)
    return report


def _over(world: World, *actors: list[Coroutine[Any, Any, Any] | None]) -> bool:
    if world.runs or world.done or world.jobs or any(actor is not None for group in actors for actor in group):
        return False
    return len(world.states) == len(world.scenarios) and not any(stored.state.active for stored in world.states.values())


def _check_end(world: World, report: Report) -> None:
    report.conflicts = world.conflicts
    report.executions = sum(world.executions.values())
    for run, scenario in world.scenarios.items():
        state = world.states[run].state
        world.check_records(state)
        records = {task: record for (owner, task), record in world.records.items() if owner == run}
        report.tasks += len(records)
        if state.cancelled:
            report.cancelled += 1
            continue
        report.digests[run] = digest(records.values())
        if "flaky" in scenario.fate.values():
            continue
        status, fate = scenario.expected()
        if state.status != status or set(records) != set(fate):
            raise Broken(f"{scenario}: {state.status} with {sorted(records)}, expected {status} with {sorted(fate)}; notes {state.notes}")
        for task, record in records.items():
            if (record.status == "done") != (fate[task] in ("ok", "empty")):
                raise Broken(f"{task} {fate[task]}, recorded as {record.status}")


def main(schedules: int) -> None:
    """Play many schedules and print what they went through."""
    started = time.process_time()
    total = Report()
    for seed in range(schedules):
        total.add(simulate(seed, flaky=seed % 5 == 0))
    print(f"{schedules} schedules, every run ended, every invariant held; CPU {time.process_time() - started:.1f} s")
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
