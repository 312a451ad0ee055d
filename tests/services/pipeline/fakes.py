"""Small but whole nouns, and a worker that answers every job with them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from tilewright.protocol import subjects
from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level
from tilewright.protocol.bus import Bus, Delivery
from tilewright.protocol.codec import MAX_VALUE, decode, encode
from tilewright.protocol.cost import Claim, Cost, Infeasible, Schedule, Violation
from tilewright.protocol.design import Core, Design
from tilewright.protocol.errors import NoConnection
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.keys import content_key, message_id, result_key
from tilewright.protocol.mapping import LevelMapping, Mapping
from tilewright.protocol.messages import (
    JOBS,
    Answer,
    Codesigned,
    CodesignJob,
    Failure,
    Job,
    KernelJob,
    MapJob,
    Mapped,
    Outcome,
    Profile,
    ProfileJob,
    Record,
    Simulated,
    StartJob,
    pack,
    unpack,
)
from tilewright.protocol.subjects import STAGES, Stage
from tilewright.protocol.workload import Operator, Workload, elementwise, matmul
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs

ARCHITECTURE = Architecture("toy", Compute("PE", 16, 4, 4), (Level("Buffer", 1 << 20), Level("DRAM")))


def workload(operators: int = 3) -> Workload:
    """`operators` distinct products, the first twice, and a softmax between."""
    products = [(f"block.{i}", matmul(p=8 + i, c=8, k=8)) for i in range(operators)]
    return Workload.build(
        "toy", [*products, ("block.softmax", elementwise("softmax", {"P": 8})), *(("again", op) for _, op in products[:1])]
    )


def schedule(operator: Operator) -> Schedule:
    """A schedule with a made-up cost."""
    mapping = Mapping((LevelMapping("Buffer"), LevelMapping("DRAM")))
    return Schedule(operator, mapping, Cost("made-up/1", "analytical", operator.iterations), Claim(), "edp", content_key(ARCHITECTURE))


def infeasible(operator: Operator) -> Infeasible:
    """Why there is no schedule."""
    return Infeasible(operator, 10, (Violation("Buffer capacity", 10, 3.0),))


def answer(job: Job, *, operators: int = 3) -> Answer:
    """What a worker could answer."""
    if isinstance(job, ProfileJob):
        return Profile(job.workload or workload(operators), job.architecture or ARCHITECTURE, Constraints(), DesignSpace(), ())
    if isinstance(job, MapJob):
        return Mapped(schedule(job.operator), evaluations=1)
    if isinstance(job, CodesignJob):
        base = Design((Core("core", ARCHITECTURE),), job.start, job.objective)
        return Codesigned(Design((Core("core", ARCHITECTURE, {"pes": 32}),), job.start, job.objective), base)
    if isinstance(job, KernelJob):
        return Kernel(job.operator, "avx2", "gemm", "void gemm(void) {}", "", "", Verification("not verified", "made up"))
    return Simulated(tuple(task.schedule.cost for task in job.tasks), "made-up/1")


class Worker:
    """Does the jobs of every stage as a service would: look the answer up, else compute, record it, tell, acknowledge.

    `reply` may be replaced to answer differently: it gets the task id and the job, and returns an answer or a failure.
    """

    def __init__(self, bus: Bus, *, stages: tuple[Stage, ...] = STAGES) -> None:
        self._bus = bus
        self._stages = stages
        self._results = ResultStore(bus)
        self._tasks: list[asyncio.Task[None]] = []
        self.reply: Callable[[str, Any], Answer | Failure] = lambda task, job: answer(job)
        self.executed: Counter[tuple[str, str]] = Counter()
        self.jobs: dict[tuple[str, str], Job] = {}
        self.blobs = 0
        #: Cleared: workers take no jobs.
        self.open = asyncio.Event()
        self.open.set()

    async def __aenter__(self) -> Worker:
        self._runs = await Runs.open(self._bus)
        self._tasks = [asyncio.create_task(self._serve(stage)) for stage in self._stages]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _serve(self, stage: Stage) -> None:
        queue = await self._bus.queue(subjects.job_stream(stage))
        while True:
            await self.open.wait()
            try:
                delivery = await queue.fetch()
            except NoConnection:
                return
            if delivery is not None:
                await self.do(stage, delivery)

    async def do(self, stage: Stage, delivery: Delivery) -> None:
        """One job."""
        envelope, start = unpack(delivery.data)
        assert isinstance(start, StartJob)
        assert start.stage == stage
        outcome = await self._outcome(envelope.run, envelope.task, start)
        await self._bus.publish(
            subjects.done_subject(envelope.run, stage),
            pack(outcome, envelope.run, task=envelope.task, generation=envelope.generation),
            message_id(envelope.run, envelope.task, envelope.generation, outcome.status),
        )
        await delivery.ack()

    async def _outcome(self, run: str, task: str, start: StartJob) -> Outcome:
        stored = await self._runs.read(run)
        if stored is not None and stored.state.cancelled:
            return Outcome(start.stage, "cancelled")
        encoded = encode(start.job)
        if start.blob:
            self.blobs += 1
            encoded = await self._bus.get_blob(start.blob) or b""
        job = decode(encoded, JOBS[start.stage], limit=MAX_VALUE)
        self.jobs[run, task] = job
        key = result_key(start.stage, job, "made up")
        found = await self._results.get(key) if start.use_cache else None
        if found is None:
            self.executed[run, task] += 1
            said = self.reply(task, job)
            if isinstance(said, Failure):
                return Outcome(start.stage, "failed", failure=said)
            standing = await self._results.put(key, encode(said))
        else:
            standing = found
        record = Record("worker", 1.0, 0.5)
        return Outcome(
            start.stage, "done", result=key, answer=hashlib.sha256(standing).hexdigest(), cached=found is not None, record=record
        )
