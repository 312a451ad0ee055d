"""Bytes as released: what an older or newer installation sends is what these files hold.

``pytest --update-golden`` writes them anew. A file that changes without a new schema number breaks running installations: fields
are only added, with defaults, so what is here stays readable and equal for ever.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tilewright.protocol.architecture import (
    Architecture,
    Compute,
    Constraints,
    DesignSpace,
    Estimator,
    Level,
    LevelConstraint,
    Network,
    Parameter,
    SpecialFunctionUnit,
)
from tilewright.protocol.codec import canonical, decode, encode
from tilewright.protocol.cost import AreaRow, Claim, Cost, EnergyRow, Infeasible, LatencyRow, Schedule, TrafficRow, Violation
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.keys import content_key, result_key
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.messages import (
    JOBS,
    MESSAGES,
    Cancel,
    Codesigned,
    CodesignJob,
    DeadLetter,
    Envelope,
    Event,
    Failure,
    KernelJob,
    MapJob,
    Mapped,
    OperatorProfile,
    Outcome,
    Profile,
    ProfileJob,
    Record,
    RunRequest,
    Simulated,
    SimulateJob,
    StartJob,
    Submit,
    unpack,
)
from tilewright.protocol.plugin import Budget
from tilewright.protocol.run import RunState, StageState, TaskRecord
from tilewright.protocol.workload import Edge, Operator, Workload, conv2d, elementwise, matmul

GOLDEN = Path(__file__).parent / "golden"
LAYER = conv2d(r=3, s=3, p=14, q=14, c=64, k=128, stride=(2, 2), padding=(1, 1), extent=(28, 28))
PRODUCT = matmul(p=128, c=768, k=768)
MODEL = msgspec.structs.replace(
    Workload.build(
        "model", [("a", LAYER), ("b", PRODUCT), ("c", PRODUCT), ("d", elementwise("softmax", {"M": 4, "N": 8}, reduced=("N",)))]
    ),
    edges=(Edge("x", (128, 768), producer="b", consumers=("c",), axes=(0, 1)),),
    parameters=663552,
    source="by hand",
)
CHIP = Architecture(
    "chip",
    Compute("mac", 256, 16, 16, energy_pj=0.5),
    (
        Level("registers", 64, instances=256, mesh_x=16, mesh_y=16, keeps=("Weights",), pool="file"),
        Level(
            "scratchpad",
            1 << 20,
            read_bandwidth=16.0,
            read_energy_pj=Estimator("sram", {"a": 1.5}),
            network=Network(4.0, hop_energy_pj=0.1),
        ),
        Level("DRAM", block_words=8, shared_bandwidth=8.0, read_energy_pj=100.0, multiple_buffering=2),
    ),
    clock_ghz=1.5,
    special_function_unit=SpecialFunctionUnit(16, 0.25),
    source="by hand",
)
MAPSPACE = Constraints((LevelConstraint("scratchpad", spatial_dims=("K",), keep=("Inputs", "Outputs"), max_factors={"P": 4}),))
SPACE = DesignSpace((Parameter("pes", "PEs", 4, 64, 16, 2, True),))
NEST = Mapping(
    (
        LevelMapping("registers", (Loop("C", 16, "Y"),), (Loop("P", 7, ragged=True),), ("Weights",)),
        LevelMapping("scratchpad", (Loop("K", 16),), (Loop("Q", 14), Loop("K", 8)), ("Inputs", "Outputs")),
        LevelMapping("DRAM"),
    )
)
PRICE = Cost(
    "timeloop/1",
    "analytical",
    123456,
    (EnergyRow("DRAM", "read", "Weights", 4096.0, 100.0),),
    (LatencyRow("compute", 123456),),
    (AreaRow("scratchpad", 0.75),),
    (TrafficRow("DRAM", "Weights", 73728, 1, 73728, 0, 0),),
    0.875,
    ("halo 4b",),
)
CLAIM = Claim("optimal", "gemmini", 1e9, 0.0)
PLAN = Schedule(LAYER, NEST, PRICE, CLAIM, "edp", content_key(CHIP), "core0")
TASK = ScheduledTask(PLAN, 3, "a")
DESIGN = Design((Core("core0", CHIP, {"pes": 16}),), (TASK,), "edp", CLAIM)
FAILURE = Failure("infeasible", "nothing fits", 1)
RECORD = Record("mapper-host-1", 1.0e9, 2.5, 2.25, 2, "tilewright==0.1.0:cosa")
BUDGET = Budget(evaluations=500, seconds=60.0, gap=0.01)
REQUEST = RunRequest(
    "bert-base",
    "gemmini",
    frontend_options={"seq": 128, "causal": True, "scale": 0.5, "kind": "x"},
    target_parameters={"pes": 16},
    stages=("profile", "map"),
    map_budget=BUDGET,
    limits={"area_mm2": 4.0},
    seed=7,
    use_cache=False,
)
SAMPLES: dict[str, Any] = {
    "run.submit": Submit(REQUEST, "ab" * 32),
    "run.cancel": Cancel(),
    "job.start": StartJob("map", msgspec.to_builtins(MapJob(LAYER, CHIP, MAPSPACE, "edp", "cosa", BUDGET, 7, {"x": 1}))),
    "task.outcome": Outcome("map", "done", "map." + "0" * 64, "1" * 64, None, True, False, RECORD),
    "event": Event("best so far", {"edp": 1.5e12}, FAILURE, True, "mapper-host-1"),
    "dead": DeadLetter("crash", "tw.v1.job.map.r.map-0", b"\x00\xff", True),
    "profile.job": ProfileJob("bert-base", "zoo", "gemmini", {"seq": 128}, {"pes": 16}, MODEL, CHIP),
    "map.job": MapJob(LAYER, CHIP, MAPSPACE, "edp", "cosa", BUDGET, 7, {"x": 1}),
    "codesign.job": CodesignJob(MODEL, "gemmini", {"pes": 16}, "energy", "pareto", BUDGET, {"area_mm2": 4.0}, (TASK,), 7, {"x": 1.5}),
    "kernel.job": KernelJob(PRODUCT, "avx2", "native", PLAN, {"x": False}),
    "simulate.job": SimulateJob((TASK,), CHIP, "analytical", {"x": "y"}),
    "profile.answer": Profile(MODEL, CHIP, MAPSPACE, SPACE, (OperatorProfile("a", "contraction", 1, 2, 4, 8, 16, 0.5, 32.0, "DRAM"),)),
    "map.answer": Mapped(PLAN, None, 500, False),
    "map.infeasible": Mapped(None, Infeasible(LAYER, 500, (Violation("capacity", 500, 12.0),), "scratchpad + 12 words")),
    "codesign.answer": Codesigned(DESIGN, DESIGN, 20000),
    "kernel.answer": Kernel(
        PRODUCT,
        "avx2",
        "gemm",
        "int x;",
        "int y;",
        "int z;",
        Verification("verified", "", 9, 0.5, "cc 12"),
        ("tile",),
        ((6, 16),),
        b"\x01",
        ("note",),
    ),
    "simulate.answer": Simulated((PRICE,), "timeloop/1", True, ({"compute": 1.0},)),
    "run.state": RunState(
        "0123456789abcdefghjk",
        REQUEST,
        "ab" * 32,
        "partial",
        (StageState("map", 3, b"\x07", b"\x03", b"\x01", b"\x04", b"", 2, 1, 1, FAILURE),),
        1.0e9,
        2.0e9,
        FAILURE,
        ("note",),
    ),
    "task.record": TaskRecord("map-0", "a", "done", "map." + "0" * 64, "1" * 64, 1, None, True, True, RECORD),
}


def schema(name: str) -> int:
    return MESSAGES[name][1] if name in MESSAGES else 1


def stored(name: str) -> Path:
    return GOLDEN / f"{name}.{schema(name)}.hex"


def as_sent(name: str) -> Any:
    """The value as it goes over the wire: messages in their envelope."""
    if name not in MESSAGES:
        return SAMPLES[name]
    return Envelope(name, schema(name), "0123456789abcdefghjk", SAMPLES[name], "map-0", 2, 1.0e9, 2.0e9)


def check(path: Path, text: str, update: bool) -> None:
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} differs: a new schema number, or a field without a default?"


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes(name: str, update: bool) -> None:
    check(stored(name), "\n".join(textwrap.wrap(encode(as_sent(name)).hex(), 120)) + "\n", update)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.hex")), ids=lambda path: path.stem)
def test_what_was_ever_released_is_read(path: Path) -> None:
    name, _, number = path.stem.rpartition(".")
    data = bytes.fromhex(path.read_text())
    if name in MESSAGES:
        envelope, value = unpack(data)
        assert (envelope.kind, envelope.schema, envelope.run, envelope.task) == (name, int(number), "0123456789abcdefghjk", "map-0")
        assert (envelope.generation, envelope.sent, envelope.deadline) == (2, 1.0e9, 2.0e9)
    else:
        value = decode(data, type(SAMPLES[name]))
    if int(number) == schema(name):
        assert canonical(value) == canonical(SAMPLES[name])


def test_nothing_is_left_out() -> None:
    assert set(MESSAGES) <= set(SAMPLES)
    for stage, job in JOBS.items():
        assert type(SAMPLES[f"{stage}.job"]) is job
        assert f"{stage}.answer" in SAMPLES
    assert {path.name for path in GOLDEN.glob("*.hex")} >= {stored(name).name for name in SAMPLES}


def test_every_field_is_used_somewhere() -> None:
    """A golden file shows a change only in what it contains."""
    used: dict[type, set[str]] = {}

    def look(value: Any) -> None:
        if isinstance(value, msgspec.Struct):
            for field in msgspec.structs.fields(type(value)):
                item = getattr(value, field.name)
                default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
                if item != default:
                    used.setdefault(type(value), set()).add(field.name)
                look(item)
        elif isinstance(value, tuple | list):
            for item in value:
                look(item)

    for sample in SAMPLES.values():
        look(sample)
    for kind in (
        Submit,
        StartJob,
        Outcome,
        Event,
        DeadLetter,
        RunState,
        StageState,
        TaskRecord,
        Operator,
        Mapping,
        LevelMapping,
        Loop,
        Cost,
    ):
        assert used[kind] | UNUSED.get(kind, set()) == {field.name for field in msgspec.structs.fields(kind)}, kind.__name__


#: Fields that the samples leave at their default.
UNUSED: dict[type, set[str]] = {
    StartJob: {"blob", "use_cache"},
    Outcome: {"failure"},
    StageState: {"skipped"},
    TaskRecord: {"failure", "complete"},
    Operator: {"output", "accumulator_bits", "bias_bits"},
}


def test_keys(update: bool) -> None:
    """Content keys: a change here empties every cache."""
    lines = [f"{name} {content_key(SAMPLES[name])}" for name in sorted(SAMPLES)]
    lines += [f"{stage} {result_key(stage, SAMPLES[f'{stage}.job'], 'code')}" for stage in JOBS]
    check(GOLDEN / "keys.txt", "\n".join(lines) + "\n", update)
