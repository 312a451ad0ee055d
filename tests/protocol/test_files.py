"""Native files: what is written is read back equal, and what people write means what it says."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.protocol import files
from tilewright.protocol.architecture import (
    Architecture,
    Compute,
    Constraints,
    Estimator,
    Level,
    LevelConstraint,
    Network,
    SpecialFunctionUnit,
)
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import (
    FUNCTIONS,
    Dim,
    Edge,
    Node,
    Operator,
    Rank,
    Tensor,
    Term,
    Workload,
    batched_matmul,
    conv2d,
    depthwise,
    elementwise,
    matmul,
)

#: Words that YAML 1.1 would take for something else, and characters that need quotes.
AWKWARD = [
    "no",
    "on",
    "null",
    "~",
    "1e-3",
    "12:30",
    "0x10",
    "true",
    "a: b",
    "# x",
    "- x",
    "é",
    "a'b\"c",
    " x ",
    "{",
    "*a",
    "&a",
    "|",
    "x\ny",
]
names = st.sampled_from(AWKWARD) | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
dims = st.sampled_from(["P", "Q", "R", "S", "C", "K", "N", "G", "batch_2"])
sizes = st.integers(1, 2**40)
numbers = st.floats(0, 1e12, allow_subnormal=False)
prices = numbers | st.builds(
    Estimator, st.sampled_from(["dosa-mac", "cacti.v7", "nan", "x"]), st.dictionaries(st.sampled_from(["a", "b"]), numbers, max_size=2)
)
positive = st.none() | st.floats(1e-6, 1e6)


@st.composite
def operators(draw: st.DrawFn) -> Operator:
    bounds = draw(st.dictionaries(dims, sizes, min_size=1, max_size=4))
    terms = st.builds(Term, st.sampled_from(sorted(bounds)), st.integers(1, 9))
    ranks = st.builds(Rank, st.lists(terms, max_size=3).map(tuple), st.integers(-9, 9), st.none() | sizes)
    tensors = [
        Tensor(name, tuple(draw(st.lists(ranks, max_size=3))), draw(st.integers(1, 64)), draw(st.booleans()))
        for name in draw(st.lists(names.filter(lambda name: name != "Outputs"), max_size=3, unique=True))
    ]
    function = draw(st.sampled_from(["multiply_accumulate", *FUNCTIONS]))
    return Operator(
        dims=tuple(Dim(name, bound) for name, bound in bounds.items()),
        tensors=(*tensors, Tensor("Outputs", tuple(draw(st.lists(ranks, max_size=3))))),
        accumulator_bits=draw(st.integers(1, 64)),
        function=function,
        reduced_dims=tuple(draw(st.lists(st.sampled_from(sorted(bounds)), max_size=2, unique=True))),
        bias_bits=draw(st.integers(0, 32)) if function == "multiply_accumulate" else 0,
    )


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    x, y, levels = draw(st.integers(1, 8)), draw(st.integers(1, 8)), []
    compute = Compute(draw(names), x * y, x, y, draw(st.integers(1, 64)), draw(prices), draw(prices))
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        x, y = draw(st.sampled_from([(x, y), (1, y), (x, 1), (1, 1)]))
        levels.append(
            Level(
                name,
                capacity_bits=draw(st.none() | sizes | st.sampled_from([8192, 64 << 13])),
                word_bits=draw(st.integers(1, 64)),
                block_words=draw(st.integers(1, 64)),
                instances=x * y,
                mesh_x=x,
                mesh_y=y,
                read_bandwidth=draw(positive),
                shared_bandwidth=draw(positive),
                keeps=tuple(draw(st.lists(names, max_size=3))),
                read_energy_pj=draw(prices),
                fill_energy_pj=draw(prices),
                update_energy_pj=draw(prices),
                area_mm2=draw(prices),
                pool=draw(st.sampled_from(["", "shared"])),
                network=draw(st.none() | st.builds(Network, positive, st.booleans(), st.booleans(), prices)),
            )
        )
    unit = draw(st.none() | st.builds(SpecialFunctionUnit, st.integers(1, 64), prices))
    return Architecture(draw(names), compute, tuple(levels), draw(st.floats(0.01, 10)), unit, draw(names))


factors = st.integers(1, 10**6)
temporal = st.builds(Loop, dims, factors, st.just("X"), st.booleans())
spatial = st.builds(Loop, dims, factors, st.sampled_from(["X", "Y"]), st.booleans())
mappings = st.builds(
    Mapping,
    st.lists(
        st.builds(
            LevelMapping,
            names,
            st.lists(spatial, max_size=3).map(tuple),
            st.lists(temporal, max_size=3).map(tuple),
            st.lists(names, max_size=3).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
)
limits = st.builds(
    LevelConstraint,
    names,
    st.none() | st.lists(dims, max_size=3).map(tuple),
    st.none() | st.lists(dims, max_size=3).map(tuple),
    st.none() | st.lists(names, max_size=3).map(tuple),
    st.dictionaries(dims, st.integers(1, 99), max_size=2),
)


@settings(max_examples=30, deadline=None)
@given(operators())
def test_operators_come_back(operator: Operator) -> None:
    assert files.parse(files.write(operator=operator)).operator == operator


@settings(max_examples=30, deadline=None)
@given(architectures(), st.builds(Constraints, st.lists(limits, max_size=3).map(tuple)))
def test_architectures_come_back(architecture: Architecture, constraints: Constraints) -> None:
    read = files.parse(files.write(architecture=architecture, constraints=constraints))
    assert (read.architecture, read.constraints) == (architecture, constraints)


@settings(max_examples=30, deadline=None)
@given(mappings)
def test_mappings_come_back(mapping: Mapping) -> None:
    assert files.parse(files.write(mapping=mapping)).mapping == mapping


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, operators()), min_size=1, max_size=4), st.integers(0, 10**12), names)
def test_workloads_come_back(calls: list[tuple[str, Operator]], parameters: int, source: str) -> None:
    workload = Workload.build("net", calls, parameters=parameters, source=source)
    first = workload.nodes[0].id
    bound = msgspec.structs.replace(
        workload,
        nodes=(Node(first, workload.nodes[0].operator, "m", {"Outputs": "t"}), *workload.nodes[1:]),
        edges=(Edge("t", (1, 2), 8, first, tuple(node.id for node in workload.nodes[1:]), (0, 1)),),
    )
    for each in (workload, bound):
        assert files.parse(files.write(workload=each)).workload == each


@settings(max_examples=30, deadline=None)
@given(operators(), architectures(), mappings)
def test_json_is_read_too(operator: Operator, architecture: Architecture, mapping: Mapping) -> None:
    """JSON with the structs' own field names, as `--json` prints them, where the long forms are the same."""
    plain: dict[str, Any] = {
        "architecture": msgspec.to_builtins(architecture),
        "mapping": [
            {**msgspec.to_builtins(level), "spatial": [], "temporal": [f"{loop.dim} {loop.factor}" for loop in level.temporal]}
            for level in mapping.levels
        ],
    }
    read = files.parse(json.dumps(plain))
    assert read.architecture == architecture
    assert read.mapping is not None
    assert [level.keep for level in read.mapping.levels] == [level.keep for level in mapping.levels]


@settings(max_examples=30, deadline=None)
@given(mappings.map(Mapping.canonical))
def test_drawn_nests_are_read_back(mapping: Mapping) -> None:
    """Whatever `str` draws is read as what was drawn, unless a name breaks the drawing."""
    if mapping.levels and all(not set(name) & set(" #[]\n\t-") for level in mapping.levels for name in (level.level, *level.keep)):
        assert files.parse_nest(str(mapping)) == mapping


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("matmul: {p: 2, c: 3, k: 4}", matmul(p=2, c=3, k=4)),
        ("matmul: {p: 2, c: 3, k: 4, static: false, bits: 16}", matmul(p=2, c=3, k=4, static=False, bits=16)),
        ("batched_matmul: {g: 2, h: 4, p: 5, c: 6, k: 7}", batched_matmul(g=2, h=4, p=5, c=6, k=7)),
        ("conv2d: {r: 3, s: 1, p: 8, q: 9, c: 2, k: 4, padding: [1, 0]}", conv2d(r=3, s=1, p=8, q=9, c=2, k=4, padding=(1, 0))),
        (
            "conv2d: {r: 3, s: 3, p: 4, q: 4, c: 2, k: 4, stride: 2, extent: [9, null]}",
            conv2d(r=3, s=3, p=4, q=4, c=2, k=4, stride=(2, 2), extent=(9, None)),
        ),
        ("depthwise: {r: 3, s: 3, p: 8, q: 8, g: 16}", depthwise(r=3, s=3, p=8, q=8, g=16)),
        ("matmul: {p: 2, c: 3, k: 4, bias: true}", msgspec.structs.replace(matmul(p=2, c=3, k=4), bias_bits=8)),
        ("softmax: {shape: {P: 2, K: 3}, reduced: [K], bits: 16}", elementwise("softmax", {"P": 2, "K": 3}, reduced=("K",), bits=16)),
        ("add: {shape: {P: 2}, operands: 2}", elementwise("add", {"P": 2}, operands=2)),
        (
            "dims: {P: 8, R: 3}\n  tensors: {Inputs: {ranks: [2*P + R - 1]}, Outputs: {ranks: [{index: P, extent: 7}]}}",
            Operator(
                (Dim("P", 8), Dim("R", 3)),
                (Tensor("Inputs", (Rank((Term("P", 2), Term("R")), -1),)), Tensor("Outputs", (Rank((Term("P"),), extent=7),))),
            ),
        ),
    ],
)
def test_operators_as_people_write_them(text: str, operator: Operator) -> None:
    assert files.parse(f"operator:\n  {text}\n").operator == operator


def test_the_example_in_the_documentation_is_read() -> None:
    example = textwrap.dedent((files.__doc__ or "").split("::\n", 1)[1].split("What may be")[0]).replace("  ...\n", "")
    read = files.parse(example)
    assert all(section is not None for section in read)
    assert read.architecture is not None and read.mapping is not None and read.workload is not None
    registers, buffer, _ = read.architecture.levels
    assert (registers.capacity_words, registers.instances, registers.update_energy_pj) == (64, 256, 0.1)
    assert (buffer.capacity_bits, buffer.fill_energy_pj, buffer.read_energy_pj) == (256 << 13, 4.0, Estimator("dosa-scratchpad"))
    assert [level.level for level in read.mapping.levels] == ["Buffer", "DRAM"]
    assert [(task.name, task.count) for task in read.workload.tasks] == [("proj", 4), ("scores", 1), ("softmax", 1)]


@pytest.mark.parametrize(
    ("capacity", "bits"),
    [("8 bits", 8), ("1 B", 8), ("3KiB", 3 << 13), ("2 MiB", 2 << 23), ("1 GiB", 1 << 33), ("10 words", 160), ("1 word", 16)],
)
def test_capacities_have_units(capacity: str, bits: int) -> None:
    text = f"architecture: {{name: a, compute: {{name: m, mesh: 1}}, levels: [{{name: L, word_bits: 16, capacity: {capacity}}}]}}"
    architecture = files.parse(text).architecture
    assert architecture is not None
    assert architecture.levels[0].capacity_bits == bits


def test_instances_alone_are_a_row() -> None:
    architecture = files.parse("architecture: {name: a, compute: {name: m, instances: 6}, levels: [{name: L, mesh: 3}]}").architecture
    assert architecture is not None
    assert (architecture.compute.mesh_x, architecture.compute.mesh_y, architecture.fanout(0)) == (6, 1, (2, 1))


def test_files_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("architecture: {name: a, compute: {name: m, mesh: 1}, levels: [{name: L}]}\n")
    (tmp_path / "b.json").write_text('{"operator": {"matmul": {"p": 1, "c": 2, "k": 3}}}')
    document = files.read_document([tmp_path / "a.yaml", str(tmp_path / "b.json")])
    assert document.architecture is not None
    assert document.operator == matmul(p=1, c=2, k=3)
    assert document.mapping is document.constraints is None


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes("\ufeffoperator: {matmul: {p: 1, c: 2, k: 3}}\r\n".encode())
    workload = files.read_workload(path)
    assert (workload.name, workload.macs) == ("windows", 6)
