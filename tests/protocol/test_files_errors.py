"""A corpus of broken files with the message of each: place, field, value, and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright.protocol import files
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import FUNCTIONS

ARCHITECTURE = "architecture:\n  name: a\n  compute: {name: MAC, mesh: 4}\n  levels:\n"
NAMES = ", ".join(["matmul", "batched_matmul", "conv2d", "depthwise", *FUNCTIONS])
FUNCTION_NAMES = ", ".join(FUNCTIONS)

CORPUS = [
    (
        "operator: {softmax: {shape: {P: 3}, axis: [P]}}\n",
        "f.yaml:1:37: operator.softmax: argument 'axis' is unknown; expected one of bits, operands, reduced, shape",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {name: Out, ranks: [P]}}\n",
        "f.yaml:3:23: operator.tensors.Outputs: key 'name' is unknown; expected one of bits, ranks, static",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [{index: P, extend: 3}]}}\n",
        "f.yaml:3:42: operator.tensors.Outputs.ranks[0]: key 'extend' is unknown; did you mean 'extent'?",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [{extent: 3}]}}\n",
        "f.yaml:3:31: operator.tensors.Outputs.ranks[0]: has no 'index'",
    ),
    (
        "workload: {name: w, operators: [{name: , matmul: {p: 1, c: 1, k: 1}}]}\n",
        "f.yaml:1:39: workload.operators[0].name: nothing, expected text",
    ),
    (
        "workload: {name: w, operators: [{count: 100001, matmul: {p: 1, c: 1, k: 1}}]}\n",
        "f.yaml:1:41: workload.operators[0].count: '100001', expected an integer from 1 to 100000",
    ),
    ("operator: {matmul: {p: 1, c: 2, k: 3, static: 1}}\n", "f.yaml:1:47: operator.matmul.static: '1', expected true or false"),
    ("operator: {matmul: {p: 1, c: 2, k: 3}, bias: true}\n", "f.yaml:1:40: operator: key 'bias' is unknown; expected one of matmul"),
    ("mapping: ~\n", "f.yaml:1:10: mapping: nothing, expected a drawn loop nest, or a list of levels"),
    ('{"mapping": [{"level": "\\ud800"}]}', "f.yaml:1:24: half of a surrogate pair, expected YAML or JSON"),
    ("", "f.yaml:1:1: empty, expected YAML or JSON"),
    ("# only a comment\n", "f.yaml:1:1: empty, expected YAML or JSON"),
    ("architecture: [1, 2\n", "f.yaml:2:1: expected ',' or ']', but got '<stream end>', expected YAML or JSON"),
    ("a: 1\n b: 2\n", "f.yaml:2:3: mapping values are not allowed here, expected YAML or JSON"),
    ("\tarchitecture: 1\n", "f.yaml:1:1: found character '\\t' that cannot start any token, expected YAML or JSON"),
    ("architecture: {name: a\x07}\n", "f.yaml:1:23: character U+0007 is not allowed, expected text"),
    ("architectur: {}\n", "f.yaml:1:1: section 'architectur' is unknown; did you mean 'architecture'?"),
    ("- 1\n", "f.yaml:1:1: a list, expected sections operator, architecture, constraints, mapping, workload"),
    (
        "architecture: 5\n",
        "f.yaml:1:15: architecture: '5', expected a mapping with name, compute, levels, clock_ghz, special_function_unit, source",
    ),
    ("architecture: {}\n", "f.yaml:1:15: architecture: has no 'name'"),
    ("architecture: {name: a, levels: []}\n", "f.yaml:1:15: architecture: has no 'compute'"),
    (ARCHITECTURE + "    []\n", "f.yaml:2:3: architecture: levels: empty, expected at least one storage level"),
    (
        ARCHITECTURE + "    - {name: L, word_bits: eight}\n",
        "f.yaml:5:28: architecture.levels[0].word_bits: 'eight', expected an integer >= 1",
    ),
    (ARCHITECTURE + "    - {name: L, word_bits: 0}\n", "f.yaml:5:28: architecture.levels[0].word_bits: '0', expected an integer >= 1"),
    (ARCHITECTURE + "    - {name: L, word_bits: 8.0}\n", "f.yaml:5:28: architecture.levels[0].word_bits: '8.0', expected an integer >= 1"),
    (ARCHITECTURE + "    - {name: L, word_bits: '8'}\n", "f.yaml:5:28: architecture.levels[0].word_bits: '8', expected an integer >= 1"),
    (
        ARCHITECTURE + "    - {name: L, capacity: 64KB}\n",
        "f.yaml:5:27: architecture.levels[0].capacity: '64KB', expected a size such as 64 KiB, 2 MiB, 128 words or 8 bits",
    ),
    (
        ARCHITECTURE + "    - {name: L, capacity: 64}\n",
        "f.yaml:5:27: architecture.levels[0].capacity: '64', expected a size such as 64 KiB, 2 MiB, 128 words or 8 bits",
    ),
    (
        ARCHITECTURE + "    - {name: L, capacity: 64 KiB, capacity_bits: 3}\n",
        "f.yaml:5:7: architecture.levels[0]: capacity and capacity_bits, expected one of them",
    ),
    (
        ARCHITECTURE + "    - {name: L, keep: [Weights]}\n",
        "f.yaml:5:17: architecture.levels[0]: key 'keep' is unknown; did you mean 'keeps'?",
    ),
    (ARCHITECTURE + "    - {name: L, keeps: Weights}\n", "f.yaml:5:24: architecture.levels[0].keeps: 'Weights', expected a list"),
    (ARCHITECTURE + "    - {name: L, energy_pj: -1}\n", "f.yaml:5:28: architecture.levels[0].energy_pj: '-1', expected a number >= 0"),
    (
        ARCHITECTURE + "    - {name: L, energy_pj: {nam: x}}\n",
        "f.yaml:5:29: architecture.levels[0].energy_pj: key 'nam' is unknown; did you mean 'name'?",
    ),
    (
        ARCHITECTURE + "    - {name: L, energy_pj: .nan}\n",
        "f.yaml:5:28: architecture.levels[0].energy_pj: '.nan', expected a number >= 0, or an estimator",
    ),
    (
        ARCHITECTURE + "    - {name: L, shared_bandwidth: fast}\n",
        "f.yaml:5:35: architecture.levels[0].shared_bandwidth: 'fast', expected a number > 0",
    ),
    (ARCHITECTURE + "    - {name: L, name: M}\n", "f.yaml:5:17: architecture.levels[0]: key 'name' is given twice"),
    (ARCHITECTURE + "    - {name: L}\n    - {name: L}\n", "f.yaml:2:3: architecture: levels: ['L', 'L'] names a level twice"),
    (ARCHITECTURE + "    - {name: L, mesh: [2, 2, 2]}\n", "f.yaml:5:23: architecture.levels[0].mesh: a list of 3, expected [x, y]"),
    (ARCHITECTURE + "    - {name: L, mesh: 3}\n", "f.yaml:2:3: architecture: L: mesh 3 x 1 does not divide that of MAC, 4 x 1"),
    (
        ARCHITECTURE + "    - {name: L, mesh: 2, instances: 2}\n",
        "f.yaml:5:7: architecture.levels[0]: mesh and instances, expected one of them",
    ),
    (ARCHITECTURE + "    - {capacity: 1 KiB}\n", "f.yaml:5:7: architecture.levels[0]: has no 'name'"),
    (ARCHITECTURE + "    - {name: L}\n  clock_ghz: 0\n", "f.yaml:6:14: architecture.clock_ghz: '0', expected a number > 0"),
    (
        ARCHITECTURE + "    - {name: L}\n  special_function_unit: {lanes: 0}\n",
        "f.yaml:6:34: architecture.special_function_unit.lanes: '0', expected an integer >= 1",
    ),
    (
        ARCHITECTURE + "    - {name: L, network: {multicast: yes}}\n",
        "f.yaml:5:38: architecture.levels[0].network.multicast: 'yes', expected true or false",
    ),
    (ARCHITECTURE + "    - L\n", "f.yaml:5:7: architecture.levels[0]: 'L', expected a mapping"),
    (ARCHITECTURE + "    - {[1]: 2}\n", "f.yaml:5:8: architecture.levels[0]: a list, expected a name as key"),
    (
        ARCHITECTURE + "    - {name: L, leakage_pj_per_cycle: }\n",
        "f.yaml:5:38: architecture.levels[0].leakage_pj_per_cycle: nothing, expected a number >= 0",
    ),
    ("constraints: {level: L}\n", "f.yaml:1:14: constraints: a mapping, expected a list of constraints, one per level"),
    ("constraints:\n  - {level: L, spatial_dims: C}\n", "f.yaml:2:30: constraints[0].spatial_dims: 'C', expected a list"),
    ("constraints:\n  - {level: L, max_factors: {C: many}}\n", "f.yaml:2:33: constraints[0].max_factors.C: 'many', expected an integer"),
    ("operator: {}\n", f"f.yaml:1:11: operator: is no operator, expected one of {NAMES}, or dims and tensors"),
    ("operator: {conv3d: {}}\n", "f.yaml:1:12: operator: operator 'conv3d' is unknown; did you mean 'conv2d'?"),
    ("operator: {matmul: {p: 1, c: 2}}\n", "f.yaml:1:20: operator.matmul: has no 'k'"),
    (
        "operator: {matmul: {m: 1, c: 2, k: 3}}\n",
        "f.yaml:1:21: operator.matmul: argument 'm' is unknown; expected one of accumulator_bits, bias, bits, c, k, p, static",
    ),
    ("operator: {matmul: {p: 0, c: 2, k: 3}}\n", "f.yaml:1:24: operator.matmul.p: '0', expected an integer >= 1"),
    (
        "operator: {conv2d: {r: 3, s: 3, p: 4, q: 4, c: 1, k: 1, stride: [1, 2, 3]}}\n",
        "f.yaml:1:65: operator.conv2d.stride: a list of 3, expected one number or [width, height]",
    ),
    (
        "operator: {conv2d: {r: 3, s: 3, p: 4, q: 4, c: 1, k: 1, padding: -1}}\n",
        "f.yaml:1:66: operator.conv2d.padding: '-1', expected an integer >= 0",
    ),
    ("operator: {matmul: {p: 1, c: 2, k: 3}, softmax: {}}\n", "f.yaml:1:40: operator: key 'softmax' is unknown; expected one of matmul"),
    (
        "operator: {softmax: {shape: {P: 3}, reduced: [K]}}\n",
        "f.yaml:1:21: operator.softmax: reduced_dims: 'K' is not one of the dims ['P']",
    ),
    ("operator: {softmax: {reduced: [K]}}\n", "f.yaml:1:21: operator.softmax: has no 'shape'"),
    ("operator:\n  dims: {P: 4}\n", f"f.yaml:2:3: operator: is no operator, expected one of {NAMES}, or dims and tensors"),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [2P]}}\n",
        "f.yaml:3:31: operator.tensors.Outputs.ranks[0]: '2P', expected an index such as P or 2*P + R - 1",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [Q]}}\n",
        "f.yaml:2:3: operator: tensors.Outputs: dim 'Q' is not one of ['P']",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [3 - P]}}\n",
        "f.yaml:3:31: operator.tensors.Outputs.ranks[0]: '3 - P', expected an index such as P or 2*P + R - 1 (a dim cannot be subtracted)",
    ),
    ("operator:\n  dims: {P: 4}\n  tensors: {Outputs: {bits: 8}}\n", "f.yaml:3:22: operator.tensors.Outputs: has no 'ranks'"),
    (
        "operator:\n  dims: {P: four}\n  tensors: {Outputs: {ranks: [P]}}\n",
        "f.yaml:2:13: operator.dims.P: 'four', expected an integer >= 1",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Inputs: {ranks: [P]}}\n",
        "f.yaml:2:3: operator: output: 'Outputs' is not one of the tensors ['Inputs']",
    ),
    (
        "operator:\n  dims: {P: 4}\n  tensors: {Outputs: {ranks: [P]}}\n  function: softmaxx\n",
        f"f.yaml:2:3: operator: function: 'softmaxx' is unknown, expected one of multiply_accumulate, {FUNCTION_NAMES}",
    ),
    ("mapping: 7\n", "f.yaml:1:10: mapping: '7', expected a level such as DRAM [Weights], or a loop such as for K in 16"),
    (
        "mapping: |\n  DRAM [Weights]\n    for K 16\n",
        "f.yaml:3:5: mapping: 'for K 16', expected a level such as DRAM [Weights], or a loop such as for K in 16",
    ),
    ("mapping: |\n  for K in 16\n", "f.yaml:2:3: mapping: 'for K in 16', expected a level such as DRAM [Weights] before the first loop"),
    ("mapping: |\n  DRAM [Weights]\n    for K in 0\n", "f.yaml:3:14: mapping: '0', expected a factor >= 1"),
    ("mapping: |\n  DRAM [Weights]\n    parallel-for K in 4 (Z)\n", "f.yaml:3:25: mapping: '(Z)', expected (X) or (Y)"),
    ("mapping: |\n  DRAM [Weights]\n    for K in 4 (X)\n", "f.yaml:3:16: mapping: '(X)', expected no axis at a temporal loop"),
    (
        "mapping: |\n  DRAM [Weights]\n    parallel-for K in 4\n    for C in 2\n",
        "f.yaml:4:5: mapping: 'for C in 2', expected temporal loops before the spatial ones, which lie inside of them at DRAM",
    ),
    ("mapping:\n  - {level: L, temporal: [K]}\n", "f.yaml:2:27: mapping[0].temporal[0]: 'K', expected a loop such as K 16, C 4 Y or ~P 7"),
    (
        "mapping:\n  - {level: L, spatial: [K 4 Z]}\n",
        "f.yaml:2:26: mapping[0].spatial[0]: 'K 4 Z', expected a loop such as K 16, C 4 Y or ~P 7",
    ),
    ("mapping:\n  - {spatial: [K 4]}\n", "f.yaml:2:5: mapping[0]: has no 'level'"),
    ("mapping: ''\n", "f.yaml:1:10: mapping: nothing, expected a level such as DRAM [Weights]"),
    ("workload: {name: w}\n", "f.yaml:1:11: workload: has no 'operators'"),
    ("workload: {name: w, operators: []}\n", "f.yaml:1:32: workload.operators: empty, expected at least one operator"),
    ("workload: {operators: [{matmul: {p: 1, c: 1, k: 1}}]}\n", "f.yaml:1:11: workload: has no 'name'"),
    (
        "workload: {name: w, operators: [{name: a, count: 0, matmul: {p: 1, c: 1, k: 1}}]}\n",
        "f.yaml:1:50: workload.operators[0].count: '0', expected an integer >= 1",
    ),
    (
        "workload: {name: w, operators: [{name: a, cuont: 2, matmul: {p: 1, c: 1, k: 1}}]}\n",
        "f.yaml:1:43: workload.operators[0]: key 'cuont' is unknown; did you mean 'count'?",
    ),
    (
        "workload: {name: w, operators: [{name: a}]}\n",
        f"f.yaml:1:33: workload.operators[0]: is no operator, expected one of {NAMES}, or dims and tensors",
    ),
    (
        "workload: {name: w, operators: [{matmul: {p: 1, c: 1, k: 1}}], nodes: [{id: a, operator: 1}]}\n",
        "f.yaml:1:11: workload: nodes.a.operator: 1, expected an index below 1",
    ),
    (
        "workload: {name: w, operators: [{matmul: {p: 1, c: 1, k: 1}}], edges: [{name: x, shape: [1]}]}\n",
        "f.yaml:1:71: workload.edges: edges without nodes, expected both or neither",
    ),
    (
        "operator: !!python/object:os.system {}\n",
        "f.yaml:1:11: no tags are allowed: !!python/object:os.system, expected YAML or JSON",
    ),
    ("operator: &a {x: *b}\n", "f.yaml:1:18: found undefined alias 'b', expected YAML or JSON"),
    ("operator: &a [*a]\n", "f.yaml:1:11: operator: a list, expected an operator"),
    ("a: 1\n---\nb: 2\n", "f.yaml:2:1: but found another document, expected YAML or JSON"),
    (
        "operator: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        "f.yaml:1:33: nested deeper than 24 levels, expected YAML or JSON",
    ),
    (
        "operator: {matmul: {p: 99999999999999999999, c: 2, k: 3}}\n",
        "f.yaml:1:24: operator.matmul.p: '99999999999999999999', expected an integer below 2^63",
    ),
]


@pytest.mark.parametrize(("text", "message"), CORPUS)
def test_broken_file(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        files.parse(text, "f.yaml")
    assert str(caught.value) == message
    assert "\n" not in message


def test_corpus_is_large_and_distinct() -> None:
    assert len({text for text, _ in CORPUS}) == len(CORPUS) >= 25


def test_a_hundred_thousand_brackets_do_not_overflow_the_stack() -> None:
    with pytest.raises(InvalidInput, match="nested deeper than 24 levels"):
        files.parse("operator: " + "[" * 100_000, "f.yaml")


def test_aliases_that_multiply_are_stopped() -> None:
    """A billion uses of one value in eight lines."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for this, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{this}: &{this} [{', '.join([f'*{before}'] * 10)}]")
    lines.append("architecture: {name: n, compute: {name: m, mesh: 1}, levels: [{name: L, keeps: *i}]}")
    with pytest.raises(InvalidInput):
        files.parse("\n".join(lines), "f.yaml")


def test_aliases_are_counted_at_every_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.protocol._nodes.MAX_VALUES", 500)
    shared = ", ".join(["*w"] * 200)
    text = f"workload:\n  name: w\n  operators: [&w {{matmul: {{p: 1, c: 1, k: 1}}}}, {shared}]\n"
    with pytest.raises(InvalidInput, match="more than 500 values, aliases included"):
        files.parse(text, "f.yaml")


def test_an_alias_of_itself_ends() -> None:
    with pytest.raises(InvalidInput, match=r"^f.yaml:1:15: operator.matmul: argument 'matmul' is unknown"):
        files.parse("operator: &a {matmul: *a}", "f.yaml")


def test_shared_values_may_be_used() -> None:
    text = f"{ARCHITECTURE}    - {{name: L, keeps: &all [Weights, Inputs]}}\n    - {{name: M, keeps: *all}}\n"
    architecture = files.parse(text).architecture
    assert architecture is not None
    assert architecture.levels[0].keeps == architecture.levels[1].keeps == ("Weights", "Inputs")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none.yaml: cannot be read: No such file"):
        files.read(tmp_path / "none.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"operator:\n  \xff\n")
    with pytest.raises(InvalidInput, match=r"binary.yaml:2:3: byte 0xff is not UTF-8, expected text"):
        files.read(path)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.protocol._nodes.MAX_BYTES", 1 << 20)
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InvalidInput, match=r"large.yaml: more than 1 MiB"):
        files.read(path)


def test_two_files_with_one_section(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("operator: {matmul: {p: 1, c: 2, k: 3}}\n")
    with pytest.raises(InvalidInput, match=r"b.yaml: operator is given by another file already"):
        files.read_document([tmp_path / "a.yaml", tmp_path / "b.yaml"])


def test_a_file_without_a_workload(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("mapping: []\n")
    with pytest.raises(InvalidInput, match=r"m.yaml: has neither workload nor operator"):
        files.read_workload(path)


def test_nothing_is_executed_by_reading(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(InvalidInput, match=r"no tags are allowed: !!python/object/apply:os.mkdir"):
        files.parse(f"operator: !!python/object/apply:os.mkdir ['{target}']\n")
    assert not target.exists()


@pytest.mark.parametrize("text", ["DRAM", "for K in 2", "DRAM [Weights]\nfor K in x"])
def test_a_broken_nest_names_its_line(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^line [12]: "):
        files.parse_nest(text)
