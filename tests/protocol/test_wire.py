"""The wire: every message survives it, nothing malformed does, and equal values have equal keys."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.protocol import _lengths, codec
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
from tilewright.protocol.codec import MAX_DEPTH, MAX_MESSAGE, canonical, decode, encode
from tilewright.protocol.cost import AreaRow, Claim, Cost, EnergyRow, Infeasible, LatencyRow, Schedule, TrafficRow, Violation
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.errors import InvalidMessage
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.keys import content_key, result_key
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.messages import (
    ANSWERS,
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
    UnknownMessage,
    pack,
    unpack,
)
from tilewright.protocol.plugin import Budget
from tilewright.protocol.run import RunState, StageState, TaskRecord
from tilewright.protocol.subjects import STAGES, Stage
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import FUNCTIONS, Edge, Operator, Workload, batched_matmul, conv2d, depthwise, elementwise, matmul

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
small = st.integers(1, 10**6)
reals = st.floats(allow_nan=False, width=64)
positive = st.floats(0, 1e12, allow_nan=False)
blobs = st.binary(max_size=40)
seeds = st.integers(0, 2**63)
objectives = st.sampled_from(["edp", "energy", "latency"])
options = st.dictionaries(names, st.one_of(st.booleans(), st.integers(-(2**63), 2**63), reals, names), max_size=3)
whole = st.dictionaries(names, st.integers(-(2**31), 2**31), max_size=3)
ratios = st.dictionaries(names, reals, max_size=3)


def several(each: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=most).map(tuple)


operators: st.SearchStrategy[Operator] = st.one_of(
    st.builds(conv2d, r=st.integers(1, 5), s=st.integers(1, 5), p=small, q=small, c=small, k=small, n=small, g=st.integers(1, 3)),
    st.builds(depthwise, r=st.integers(1, 5), s=st.integers(1, 5), p=small, q=small, g=small),
    st.builds(matmul, p=small, c=small, k=small, static=st.booleans(), bits=st.integers(1, 64)),
    st.builds(batched_matmul, g=small, p=small, c=small, k=small, h=st.integers(1, 4)),
    st.builds(
        elementwise, st.sampled_from(sorted(FUNCTIONS)), st.just({"M": 4, "N": 8}), operands=st.integers(1, 3), reduced=st.just(("N",))
    ),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    items = draw(st.lists(st.tuples(names, operators), min_size=1, max_size=4))
    built = Workload.build(draw(names), items, parameters=draw(small), source=draw(names))
    edges = draw(several(st.builds(Edge, names, several(small), small, st.sampled_from([node.id for node in built.nodes]), st.just(()))))
    return msgspec.structs.replace(built, edges=edges)


prices = st.one_of(positive, st.builds(Estimator, names, ratios))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    x, y = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    compute = Compute(draw(names), 16 * x * y, 4 * x, 4 * y, draw(small), draw(prices), draw(prices))
    network = st.none() | st.builds(Network, st.none() | st.floats(0.001, 1e6), st.booleans(), st.booleans(), prices)
    level = st.builds(
        Level,
        name=names,
        capacity_bits=st.none() | small,
        word_bits=small,
        block_words=small,
        instances=st.just(x * y),
        mesh_x=st.just(x),
        mesh_y=st.just(y),
        read_bandwidth=st.none() | st.floats(0.001, 1e6),
        keeps=several(names),
        read_energy_pj=prices,
        pool=names,
        network=network,
    )
    levels = tuple({each.name: each for each in draw(st.lists(level, min_size=1, max_size=3))}.values())
    unit = draw(st.none() | st.builds(SpecialFunctionUnit, small, prices))
    return Architecture(draw(names), compute, levels, draw(st.floats(0.1, 10)), unit, draw(st.text(max_size=5)))


constraints = st.builds(
    Constraints,
    several(st.builds(LevelConstraint, names, st.none() | several(names), st.none() | several(names), st.none() | several(names), whole)),
)
parameters = st.builds(Parameter, names, names, st.just(1), st.just(64), st.integers(1, 64), st.just(2), st.booleans())
spaces = st.builds(DesignSpace, several(parameters))
loops = st.builds(Loop, names, small, st.sampled_from(["X", "Y"]), st.booleans())
mappings = st.builds(Mapping, several(st.builds(LevelMapping, names, several(loops), several(loops), several(names))))
claims = st.builds(Claim, st.sampled_from(["optimal", "proxy optimum", "best found"]), names, st.none() | reals, st.none() | reals)
costs = st.builds(
    Cost,
    names,
    st.sampled_from(["analytical", "cycle", "measured"]),
    seeds,
    several(st.builds(EnergyRow, names, names, names, reals, reals)),
    several(st.builds(LatencyRow, names, seeds)),
    several(st.builds(AreaRow, names, reals)),
    several(st.builds(TrafficRow, names, names, small, small, seeds, seeds, seeds)),
    reals,
    several(names),
)
schedules = st.builds(Schedule, operators, mappings, costs, claims, objectives, names, names)
infeasibles = st.builds(Infeasible, operators, small, several(st.builds(Violation, names, small, reals)), names)
tasks = st.builds(ScheduledTask, schedules, small, names)
designs = st.builds(Design, several(st.builds(Core, names, architectures(), whole), 2), several(tasks, 2), objectives, claims)
verifications = st.builds(Verification, st.sampled_from(["verified", "not verified"]), names, small, reals, names)
kernels = st.builds(
    Kernel, operators, names, names, names, names, names, verifications, several(names), several(st.tuples(small, small)), st.none() | blobs
)
budgets = st.builds(Budget, st.none() | small, st.none() | reals, st.none() | reals)
requests = st.builds(
    RunRequest,
    model=names,
    target=names,
    frontend_options=options,
    target_parameters=whole,
    stages=several(st.sampled_from(STAGES), 5),
    objective=objectives,
    map_budget=budgets,
    limits=ratios,
    seed=seeds,
    use_cache=st.booleans(),
    workload=st.none() | workloads(),
    architecture=st.none() | architectures(),
)
failures = st.builds(Failure, names, names, st.integers(0, 5))
records = st.builds(Record, names, reals, reals, reals, small, names)
profiles = st.builds(OperatorProfile, names, names, small, seeds, seeds, seeds, seeds, reals, reals, names)

stages = st.builds(StageState, stage=st.sampled_from(STAGES), total=small, sent=blobs, done=blobs, first_failure=st.none() | failures)
endings = st.sampled_from(["done", "failed", "cancelled"])
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | reals | names | blobs,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)

STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    ProfileJob: st.builds(ProfileJob, names, names, names, options, whole, st.none() | workloads(), st.none() | architectures()),
    MapJob: st.builds(MapJob, operators, architectures(), constraints, objectives, names, budgets, seeds, options),
    CodesignJob: st.builds(CodesignJob, workloads(), names, whole, objectives, names, budgets, ratios, several(tasks, 2), seeds, options),
    KernelJob: st.builds(KernelJob, operators, names, names, st.none() | schedules, options),
    SimulateJob: st.builds(SimulateJob, several(tasks, 2), architectures(), names, options),
    Profile: st.builds(Profile, workloads(), architectures(), constraints, spaces, several(profiles)),
    Mapped: st.builds(Mapped, st.none() | schedules, st.none() | infeasibles, small, st.booleans()),
    Codesigned: st.builds(Codesigned, designs, designs, small, st.booleans()),
    Kernel: kernels,
    Simulated: st.builds(Simulated, several(costs), names, st.booleans(), several(ratios)),
    Submit: st.builds(Submit, requests, names),
    Cancel: st.builds(Cancel),
    StartJob: st.builds(StartJob, st.sampled_from(STAGES), st.none(), names, st.booleans()),
    Outcome: st.builds(
        Outcome,
        st.sampled_from(STAGES),
        st.sampled_from(["done", "failed", "cancelled"]),
        names,
        names,
        st.none() | failures,
        st.booleans(),
        st.booleans(),
        st.none() | records,
    ),
    Event: st.builds(Event, names, ratios, st.none() | failures, st.booleans(), names),
    DeadLetter: st.builds(DeadLetter, names, names, blobs, st.booleans()),
    RunState: st.builds(
        RunState,
        run=names,
        request=requests,
        status=st.sampled_from(["running", "done", "partial", "failed", "cancelled"]),
        stages=several(stages),
        submitted=reals,
        failure=st.none() | failures,
        notes=several(names),
    ),
    TaskRecord: st.builds(TaskRecord, task=names, name=names, status=endings, record=st.none() | records),
    ValidationReport: st.builds(ValidationReport, suite=names, file=names, cases=small, mape=st.none() | reals),
    Envelope: st.builds(Envelope, names, small, names, st.none() | options, names, small, reals, reals),
}
anything = st.sampled_from(sorted(STRATEGIES, key=lambda kind: kind.__name__)).flatmap(lambda kind: STRATEGIES[kind])


def test_every_message_job_and_answer_is_covered() -> None:
    assert {payload for payload, _ in MESSAGES.values()} <= set(STRATEGIES)
    assert set(JOBS.values()) | set(ANSWERS.values()) <= set(STRATEGIES)
    assert tuple(JOBS) == tuple(ANSWERS) == STAGES == get_args(Stage)


@settings(deadline=None, max_examples=120)
@given(anything)
def test_round_trip(value: Any) -> None:
    data = encode(value)
    back = decode(data, type(value), limit=1 << 30)
    assert back == value
    assert type(back) is type(value)


@settings(deadline=None, max_examples=120)
@given(anything)
def test_the_two_libraries_speak_the_same_bytes(value: Any) -> None:
    """So either can be swapped in: msgspec's own codec writes what we write, but for wider headers than needed, and reads it."""
    data = encode(value)
    assert msgpack.packb(msgpack.unpackb(msgspec.msgpack.encode(value), strict_map_key=True)) == data
    assert msgspec.msgpack.decode(data, type=type(value)) == value


@settings(deadline=None, max_examples=120)
@given(anything)
def test_a_key_survives_the_wire(value: Any) -> None:
    back = decode(encode(value), type(value), limit=1 << 30)
    assert canonical(back) == canonical(value)
    assert decode(canonical(value), type(value), limit=1 << 30) == value


@settings(deadline=None, max_examples=100)
@given(STRATEGIES[Outcome], names, names, st.integers(0, 10), reals)
def test_envelopes(outcome: Outcome, run: str, task: str, generation: int, deadline: float) -> None:
    envelope, payload = unpack(pack(outcome, run, task=task, generation=generation, deadline=deadline))
    assert payload == outcome
    assert (envelope.kind, envelope.schema, envelope.run, envelope.task) == ("task.outcome", 1, run, task)
    assert (envelope.generation, envelope.deadline) == (generation, deadline)
    assert envelope.sent > 0


# --- keys -------------------------------------------------------------------------------------------------------------------------


def other(value: str) -> str:
    """An equal string that is another object."""
    return "".join([*value])


def test_a_key_depends_on_values_not_on_objects() -> None:
    """A default that was said is the default that was not."""
    plain = Architecture("a", Compute("mac", 1), (Level("ram"),))
    said = Architecture("a", Compute("mac", 1), (Level("ram", word_bits=int("8")),), clock_ghz=float("1.0"), source=other(""))
    assert plain == said
    assert canonical(plain) == canonical(said)
    product = matmul(p=2, c=3, k=4)
    assert content_key(product) == content_key(
        msgspec.structs.replace(product, output=other("Outputs"), function=other("multiply_accumulate"))
    )
    request = RunRequest("bert-base", "gemmini")
    assert content_key(request) == content_key(RunRequest("bert-base", "gemmini", map_budget=Budget(evaluations=int("20000"))))


def test_numbers_of_the_declared_type() -> None:
    assert content_key(Compute("mac", 1, energy_pj=2)) == content_key(Compute("mac", 1, energy_pj=2.0))
    assert content_key(Event(figures={"x": 1})) == content_key(Event(figures={"x": 1.0}))
    whole, real = (ProfileJob("m", "f", "t", {"seconds": number}) for number in (1, 1.0))
    assert content_key(whole) != content_key(real), "an option may be either"


def test_the_order_of_keys_does_not_matter() -> None:
    assert content_key({"a": 1, "b": {"d": 1, "c": 2}}) == content_key({"b": {"c": 2, "d": 1}, "a": 1})
    assert content_key(Event(figures={"x": 1.0, "y": 2.0})) == content_key(Event(figures={"y": 2.0, "x": 1.0}))


def test_the_order_of_elements_does() -> None:
    assert content_key([1, 2]) != content_key([2, 1])


def test_a_struct_inside_of_an_untyped_field_is_keyed_by_value_too() -> None:
    level, said = Level("ram"), Level("ram", word_bits=int("8"), pool=other(""), read_energy_pj=float("0.0"))
    assert content_key(StartJob("map", {"level": level})) == content_key(StartJob("map", {"level": said}))


@pytest.mark.parametrize(
    "change",
    [
        {"operator": matmul(p=2, c=3, k=5)},
        {"objective": "energy"},
        {"seed": 1},
        {"mapper": "random"},
        {"budget": Budget(evaluations=11)},
        {"options": {"x": True}},
        {"constraints": Constraints((LevelConstraint("ram"),))},
        {"architecture": Architecture("a", Compute("mac", 1), (Level("ram", block_words=2),))},
    ],
)
def test_every_part_of_a_request_counts(change: dict[str, Any]) -> None:
    job = MapJob(
        matmul(p=2, c=3, k=4), Architecture("a", Compute("mac", 1), (Level("ram"),)), Constraints(), "edp", "cosa", Budget(evaluations=10)
    )
    key = result_key("map", job, "code")
    assert result_key("map", msgspec.structs.replace(job, **change), "code") != key
    assert result_key("map", job, "other code") != key
    assert result_key("codesign", job, "code") != key
    assert key == result_key("map", decode(encode(job), MapJob), "code")
    stage, _, digest = key.partition(".")
    assert (stage, len(digest)) == ("map", 64)


def test_no_struct_is_tagged() -> None:
    """`canonical` writes fields only."""
    from tilewright.protocol import architecture, cost, design, kernel, mapping, messages, plugin, run, validation, workload

    modules = (architecture, cost, design, kernel, mapping, messages, plugin, run, validation, workload)
    structs = {
        value for module in modules for value in vars(module).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    assert len(structs) > 50
    assert [kind for kind in structs if kind.__struct_config__.tag is not None] == []
    assert [kind for kind in structs if not kind.__struct_config__.frozen] == []
    assert [kind for kind in structs for field in msgspec.structs.fields(kind) if field.name != field.encode_name] == []


# --- evolution --------------------------------------------------------------------------------------------------------------------


def test_unknown_fields_are_ignored_and_missing_ones_take_their_defaults() -> None:
    data = msgpack.packb({"name": "mac", "instances": 4, "mesh_x": 4, "invented": [1, {"x": None}]})
    assert decode(data, Compute) == Compute("mac", 4, 4)


def test_an_unknown_kind_or_a_newer_schema_is_told_apart_from_garbage() -> None:
    for kind, schema in (("run.dance", 1), ("run.submit", 2)):
        data = encode(Envelope(kind, schema, "run1", {"anything": 1}))
        with pytest.raises(UnknownMessage, match=rf"message kind {kind}/{schema} is unknown, expected one of run\.submit/1, run\.cancel/1"):
            unpack(data)


# --- malformed --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        ({"name": 5, "instances": 1}, r"Compute: Expected `str`, got `int` - at `\$\.name`"),
        ({"instances": 1}, r"Compute: Object missing required field `name`"),
        ({"name": "mac", "instances": 0}, r"Expected `int` >= 1 - at `\$\.instances`"),
        ({"name": "mac", "instances": 1.5}, r"Expected `int`, got `float` - at `\$\.instances`"),
        ({"name": "mac", "instances": 1, "energy_pj": -1.0}, r"Expected `float` >= 0\.0 - at `\$\.energy_pj`"),
        ([1, 2], r"Compute: Expected `object`, got `array`"),
        (None, r"Compute: Expected `object`, got `null`"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(plain: Any, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        decode(msgpack.packb(plain), Compute)


def test_what_a_noun_says_about_itself_is_named_by_its_path_too() -> None:
    bad = msgspec.to_builtins(
        MapJob(matmul(p=2, c=3, k=4), Architecture("a", Compute("m", 1), (Level("r"),)), Constraints(), "edp", "x", Budget())
    )
    bad["operator"]["dims"][0][1] = 0
    with pytest.raises(InvalidMessage, match=r"MapJob: dims\.P: bound is 0, expected an integer >= 1 - at `\$\.operator`"):
        decode(msgpack.packb(bad), MapJob)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "incomplete input"),
        (b"\xc1", "not MessagePack"),
        (b"\x81", "incomplete input"),
        (b"\x80\x80", "extra data"),
        (b"\xdb\xff\xff\xff\xff", "not MessagePack"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\xc6\xff\xff\xff\xff", "not MessagePack"),
        (b"\xc9\xff\xff\xff\xff\x01", "exceeds max_ext_len"),
        (b"\x81\x01\x02", "int is not allowed for map key"),
        (b"\x81\xc4\x01a\x02", "Compute"),
        (b"\x81\x90\x02", "list is not allowed for map key"),
        (b"\x81\xa2\xff\xff\x02", "can't decode byte 0xff"),
        (b"\xd6\xff\x00\x00\x00\x00", "exceeds max_ext_len"),
        (b"\x91" * 5000, "not MessagePack"),
        (b"{}", "not MessagePack|extra data"),
    ],
)
def test_bytes_that_are_no_message(data: bytes, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        decode(data, Compute)


def test_too_long() -> None:
    with pytest.raises(InvalidMessage, match=f"message of {MAX_MESSAGE + 1} bytes, expected at most {MAX_MESSAGE}"):
        decode(bytes(MAX_MESSAGE + 1), Compute)
    with pytest.raises(InvalidMessage, match=r"event of 1\d{6} bytes, expected at most 1000000: its large parts travel as blobs"):
        pack(Event("x" * MAX_MESSAGE), "run1")


@pytest.mark.parametrize(("depth", "fits"), [(MAX_DEPTH - 2, True), (MAX_DEPTH, False), (400, False)])
def test_nesting(depth: int, fits: bool) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    data = msgpack.packb({"kind": "event", "schema": 1, "run": "r", "payload": nested})
    if fits:
        assert decode(data, Envelope).run == "r"
    else:
        with pytest.raises(InvalidMessage, match=f"nests deeper than {MAX_DEPTH} levels"):
            decode(data, Envelope)


def peak(data: bytes, kind: type = Envelope) -> int:
    """Largest allocation while decoding fails, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage):
            decode(data, kind, limit=1 << 24)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("levels", [1, 2, 30, 300])
def test_announced_arrays_take_no_memory(levels: int) -> None:
    """A megabyte that announces a million elements at each of many levels."""
    size = 1_000_000
    data = (b"\xdd" + struct.pack(">I", size // 2)) * levels
    assert peak(data + b"\xc0" * (size - len(data))) < 8 * size


def test_long_arrays_that_are_there_are_read() -> None:
    rows = [("c", "read", "Weights", 1.0, float(index)) for index in range(3 * codec.BELIEVED)]
    cost = Cost("m", "analytical", 1, tuple(EnergyRow(*row) for row in rows))
    assert decode(encode(cost), Cost) == cost


def fuzz(data: bytes, kind: type) -> None:
    """Decoding ends in a value or in `InvalidMessage`, never in anything else."""
    try:
        decode(data, kind)
    except InvalidMessage as error:
        assert str(error)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    for kind in (Envelope, Operator, RunState):
        fuzz(data, kind)


@settings(deadline=None, max_examples=200)
@given(anything, st.randoms(use_true_random=False))
def test_damaged_messages(value: Any, chance: random.Random) -> None:
    data = bytearray(encode(value))
    fuzz(bytes(data[: chance.randrange(len(data))]), type(value))
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
        fuzz(bytes(data), type(value))
    at = chance.randrange(len(data))
    fuzz(bytes(data[:at]) + chance.randbytes(5) + bytes(data[at:]), type(value))


@settings(deadline=None, max_examples=100)
@given(plain_values)
def test_wrong_types(plain: Any) -> None:
    for kind in (Envelope, Operator, Architecture, RunState, Submit, Mapping):
        fuzz(msgpack.packb(plain), kind)


@settings(deadline=None, max_examples=100)
@given(plain_values)
def test_the_look_at_lengths_accepts_what_is_well_formed(plain: Any) -> None:
    data = msgpack.packb(plain)
    _lengths.check_lengths(data)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"announced|ends at byte"):
            _lengths.check_lengths(data[:end])


@pytest.mark.parametrize(
    "value", [bytes(300), bytes(70_000), "x" * 40, "x" * 300, "x" * 70_000, [0] * 20, [0] * 70_000, {str(i): i for i in range(70_000)}]
)
def test_the_look_at_lengths_knows_every_form(value: Any) -> None:
    data = msgpack.packb(value)
    _lengths.check_lengths(data)
    with pytest.raises(ValueError, match=r"announced|ends at byte"):
        _lengths.check_lengths(data[:-1])


@pytest.mark.parametrize("first", [0xC1, 0xC7, 0xD4, 0xD8])
def test_the_look_at_lengths_refuses_extensions(first: int) -> None:
    with pytest.raises(ValueError, match="starts nothing that is allowed here"):
        _lengths.check_lengths(bytes([first]) + bytes(20))


def test_an_array_that_is_long_and_broken() -> None:
    data = msgpack.packb({"kind": "event", "schema": 1, "run": "r", "payload": [0] * (2 * codec.BELIEVED)})
    assert len(decode(data, Envelope).payload) == 2 * codec.BELIEVED
    with pytest.raises(InvalidMessage, match="not MessagePack"):
        decode(data[:-1], Envelope)
    with pytest.raises(InvalidMessage, match="not MessagePack"):
        decode(data[:-3] + b"\xc1\x00\x00", Envelope)
