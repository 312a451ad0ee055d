"""The ``timeloop`` format: descriptions as Timeloop's own examples write them, and round trips that change no figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright import loopnest as ln
from tilewright.plugins.validations.timeloop import cases
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Estimator, Level, Network
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Document
from tilewright.protocol.workload import Rank, Term, elementwise, matmul

V03 = """
architecture:
  version: 0.3
  subtree:
    - name: system
      local:
        - name: DRAM
          class: DRAM
          attributes: {type: LPDDR4, width: 64, word-bits: 16, bandwidth: 20}
      subtree:
        - name: chip
          attributes: {technology: 45nm}
          local:
            - name: glb
              class: smartbuffer_SRAM
              attributes: {memory_depth: 16384, memory_width: 64, word-bits: 16, read_bandwidth: 16, multiple-buffering: 2}
          subtree:
            - name: PE[0..3]
              local:
                - name: spad[0..41]
                  class: smartbuffer_RF
                  attributes: {depth: 192, width: 16, word_bits: 16, meshX: 14}
                - name: mac[0..41]
                  class: intmac
                  attributes: {datawidth: 16, meshX: 14}
"""

V04 = """
architecture:
  version: 0.4
  nodes:
  - !Container
    name: system
  - !Component
    name: DRAM
    class: DRAM
    attributes: {width: 64, datawidth: 16}
  - !Component
    name: glb
    class: smartbuffer_SRAM
    attributes: {depth: 16384, width: 64, datawidth: 16, shared_bandwidth: 8}
  - !Container
    name: column
    spatial: {meshX: 14}
  - !Container
    name: PE
    spatial: {meshY: 12}
  - !Component
    name: spad
    class: smartbuffer_RF
    attributes: {depth: 192, width: 16, datawidth: 16}
  - !Component
    name: mac
    class: intmac
    attributes: {datawidth: 16}
"""

FLAT = """
arch:
  arithmetic: {name: MACs, instances: 1024, word-bits: 8}
  storage:
  - {name: Registers, entries: 1, instances: 1024, word-bits: 8, cluster-size: 64}
  - {name: WeightBuffer, entries: 16384, instances: 128, word-bits: 8, block-size: 8}
  - {name: DRAM, technology: DRAM, instances: 1, word-bits: 8, block-size: 64, bandwidth: 20.0}
"""

PROBLEM = """
problem:
  version: 0.4
  shape:
    name: CNN-Layer
    dimensions: [C, M, R, S, N, P, Q]
    coefficients:
    - {name: Wstride, default: 1}
    - {name: Hstride, default: 1}
    data_spaces:
    - name: Weights
      projection: [[[C]], [[M]], [[R]], [[S]]]
    - name: Outputs
      projection: [[[N]], [[M]], [[Q]], [[P]]]
      read_write: True
    - name: Inputs
      projection:
      - [[N]]
      - [[C]]
      - [[R], [P, Wstride]]
      - [[S], [Q, Hstride]]
  instance: {C: 8, M: 16, R: 3, S: 3, N: 1, P: 14, Q: 12, Wstride: 2}
"""

MAPPING = """
mapping:
- {target: DRAM, type: temporal, factors: "C2 M=4 P0", permutation: CMP}
- {target: glb, type: temporal, factors: [R=3, S=3], permutation: [S, R]}
- {target: glb, type: spatial, factors: {P: 14, Q: 12}, permutation: PQ, split: 1}
- {target: glb, type: bypass, keep: [Inputs, Outputs], bypass: [Weights]}
- {target: spad, type: temporal, factors: "M=4 C=4", permutation: "M C"}
"""

MAP_FILE = """
DRAM [ Weights:1152 (1152) Inputs:3248 (3248) Outputs:2688 (2688) ]
-------------------------------------------------------------------
| for M in [0:4)
|   for C in [0:2)

glb [ Inputs:3248 (3248) Outputs:672 (672) ]
--------------------------------------------
|     for R in [0:3)
|       for S in [0:3)
|         for Q in [0:12) (Spatial-Y)
|           for P in [0:14) (Spatial-X)

spad [ Weights:16 (16) Inputs:4 (4) Outputs:4 (4) ]
---------------------------------------------------
|             for C in [0:4)
|               for M in [0:4)
"""


def read(folder: Path, **texts: str) -> Document:
    paths = []
    for name, text in texts.items():
        path = folder / f"{name}.{'txt' if name == 'map' else 'yaml'}"
        path.write_text(text)
        paths.append(str(path))
    document: Document = registry.load("formats", "timeloop").read(paths)
    return document


def architecture(document: Document) -> Architecture:
    assert document.architecture is not None
    return document.architecture


def test_version_3_trees(tmp_path: Path) -> None:
    found = architecture(read(tmp_path, arch=V03))
    spad, glb, dram = found.levels
    assert found.level_names == ("spad", "glb", "DRAM")
    assert (found.compute.instances, found.compute.mesh_x, found.compute.mesh_y, found.compute.bits) == (168, 14, 12, 16)
    assert (spad.instances, spad.mesh_x, spad.mesh_y, spad.capacity_words, spad.block_words) == (168, 14, 12, 192, 1)
    assert (glb.capacity_words, glb.block_words, glb.multiple_buffering, glb.read_bandwidth, glb.write_bandwidth) == (65536, 4, 2, 16, None)
    assert (dram.capacity_bits, dram.block_words, dram.read_bandwidth, dram.write_bandwidth) == (None, 4, 10, 10)
    assert glb.read_energy_pj == Estimator("timeloop-sram")
    assert dram.read_energy_pj == Estimator("timeloop-dram")


def test_version_4_nodes(tmp_path: Path) -> None:
    found = architecture(read(tmp_path, arch=V04))
    assert found.level_names == ("spad", "glb", "DRAM")
    assert (found.compute.mesh_x, found.compute.mesh_y) == (14, 12)
    assert (found.levels[0].instances, found.levels[1].instances) == (168, 1)
    assert found.levels[1].shared_bandwidth == 8


def test_flat_lists_price_as_timeloop_prints(tmp_path: Path) -> None:
    found = architecture(read(tmp_path, arch=FLAT))
    assert found.level_names == ("Registers", "WeightBuffer", "DRAM")
    prices = ln.Prices(found)
    assert prices.read == pytest.approx([0.4890075376884422, 7.115577889447236, 6400.0], rel=1e-12)
    assert prices.compute == 0.25
    assert found.fanout(1) == (8, 1)


def test_problems_and_mappings(tmp_path: Path) -> None:
    document = read(tmp_path, arch=V04, problem=PROBLEM, mapping=MAPPING)
    operator, mapping = document.operator, document.mapping
    assert operator is not None
    assert mapping is not None
    assert operator.output == "Outputs"
    assert operator.tensor("Inputs").ranks[2] == Rank((Term("R"), Term("P", 2)))
    spad, glb, dram = mapping.levels
    assert spad == LevelMapping("spad", (), (Loop("M", 4), Loop("C", 4)), ("Weights", "Inputs", "Outputs"))
    assert glb == LevelMapping("glb", (Loop("P", 14, "X"), Loop("Q", 12, "Y")), (Loop("S", 3), Loop("R", 3)), ("Inputs", "Outputs"))
    # The factor 0 of P stands for what is left of it: nothing.
    assert dram.temporal == (Loop("C", 2), Loop("M", 4))
    cost = ln.cost(ln.Problem(operator, architecture(document)), mapping)
    assert cost.latency[0].cycles == 1152


def test_map_files_say_the_same(tmp_path: Path) -> None:
    listed = read(tmp_path, arch=V04, problem=PROBLEM, mapping=MAPPING).mapping
    printed = read(tmp_path, map=MAP_FILE).mapping
    assert listed is not None
    assert printed is not None
    assert printed.canonical() == listed.canonical()


def test_energy_tables_win_over_built_in_prices(tmp_path: Path) -> None:
    tables = """
ERT:
  tables:
  - {name: "system.DRAM[1..1]", actions: [{name: read, energy: 512}, {name: write, energy: 640}]}
  - name: system.glb[1..1]
    actions: [{name: read, energy: 11}, {name: write, energy: 13}, {name: update, energy: 14}, {name: leak, energy: 0.5}]
  - {name: "system.PE[1..14].spad[1..12]", actions: [{name: read, energy: 1}, {name: fill, energy: 2}, {name: update, energy: 3}]}
  - {name: "system.PE[1..14].mac[1..12]", actions: [{name: mac, energy: 0.25}]}
ART:
  tables:
  - {name: "system.glb[1..1]", area: 2500000}
"""
    found = architecture(read(tmp_path, arch=V04, tables=tables))
    spad, glb, dram = found.levels
    assert (spad.read_energy_pj, spad.fill_energy_pj, spad.update_energy_pj) == (1, 2, 3)
    assert (glb.fill_energy_pj, glb.update_energy_pj, glb.leakage_pj_per_cycle, glb.area_mm2) == (13, 14, 0.5, 2.5)
    assert (dram.fill_energy_pj, dram.update_energy_pj) == (640, 640)
    assert found.compute.energy_pj == 0.25
    with pytest.raises(InvalidInput, match="the energy table has no spad, glb, mac; it has DRAM"):
        read(tmp_path, arch=V04, tables="ERT: {tables: [{name: DRAM, actions: [{name: read, energy: 1}, {name: write, energy: 1}]}]}")


def test_round_trips_change_no_figure(tmp_path: Path) -> None:
    """Recorded cases of every architecture: written, read back, costed; map files too."""
    plugin = registry.load("formats", "timeloop")
    seen: dict[str, int] = {}
    for _, case in cases.read(cases.DATA):
        if case is None or seen.get(case.arch.name, 0) >= 4:
            continue
        seen[case.arch.name] = seen.get(case.arch.name, 0) + 1
        document = Document(cases.operator(case.problem), cases.architecture(case.arch), None, cases.mapping(case.mapping))
        assert document.operator is not None
        assert document.architecture is not None
        assert document.mapping is not None
        expected = ln.cost(ln.Problem(document.operator, document.architecture), document.mapping)
        texts = plugin.write(document)
        for without in ("mapping.map.txt", "mapping.yaml"):
            paths = []
            for file, text in texts.items():
                if file != without:
                    (tmp_path / file).write_text(text)
                    paths.append(str(tmp_path / file))
            again = plugin.read(paths)
            assert ln.cost(ln.Problem(again.operator, again.architecture), again.mapping) == expected, case.id
    assert len(seen) == 6


WHOLE = {"arch": V04, "problem": PROBLEM, "mapping": MAPPING}
NOC = V04.replace("class: smartbuffer_RF\n    attributes: {depth: 192, width: 16, ", "class: XY_NoC\n    attributes: {")


def changed(part: str, old: str, new: str) -> dict[str, str]:
    """All three parts, one of them with a mistake."""
    assert old in WHOLE[part]
    return {**WHOLE, part: WHOLE[part].replace(old, new)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"arch": "architecture: [1, 2"}, r"arch.yaml, line 1, column 20: not YAML: expected ',' or '\]'"),
        ({"arch": "- 1"}, "arch.yaml, line 1, column 1: expected a mapping with architecture, problem or mapping"),
        ({"arch": "hardware: {}"}, "arch.yaml, line 1, column 1: has none of architecture, arch, problem.*it has hardware"),
        ({"arch": "architecture: {version: 0.4}"}, "has neither nodes .*nor subtree .*nor storage"),
        ({"arch": V04.replace("depth: 192", "depth: many")}, "arch.yaml, line 24, column 18: depth: 'many', expected a number"),
        ({"arch": V04.replace("!Container\n    name: PE", "!Parallel\n    name: PE")}, "node !Parallel: not supported"),
        ({"arch": NOC}, "spad: a component of class 'XY_NoC' is neither storage nor compute"),
        ({"arch": V03.replace("meshX: 14}", "meshX: 13}")}, "meshX: 13 does not divide the 168 instances"),
        ({"problem": "problem: {shape: gemm}"}, "problem.yaml, line 1, column 11: shape: 'gemm', expected 'cnn-layer'"),
        (changed("problem", "[[[C]], [[M]]", "[[[C]], [[K]]"), "projection: dim 'K' is not one of C, M, R"),
        (changed("problem", "read_write: True", "read_write: False"), "no data space is read-write"),
        (changed("problem", "C: 8", "C: 0"), "problem.yaml, line 22, column 14: C: 0, expected a whole number of at least 1"),
        ({"mapping": MAPPING}, "mapping: needs the architecture beside it"),
        (changed("mapping", "target: spad", "target: rf"), "target: level 'rf' is unknown, expected one of spad, glb, DRAM"),
        (changed("mapping", "M=4 C=4", "M=4 K=4"), "factors: 'K=4', expected e.g. 'P=4' with a dim of C, M"),
        (changed("mapping", "M=4 C=4", "M=4,2"), "residual; imperfect factors are not imported"),
        (changed("mapping", "M=4 C=4", "M=4 M=4"), "factors: M twice, expected one factor for each dim"),
        (changed("problem", "[[[C]], [[M]]", "[[[]], [[M]]"), r"projection: \[\], expected \[dim\] or \[dim, coefficient\]"),
        ({"arch": V04.replace("depth: 192", "depth: .inf")}, "depth: inf, expected a finite number"),
        ({"arch": V04.replace("depth: 192", "depth: 1.0e+30")}, r"depth: 1e\+30, expected what an int64 holds"),
        ({"arch": V04.replace("depth: 192", "depth: 192, read_bandwidth: 0")}, "read_bandwidth: 0, expected a number above 0"),
        ({"arch": V04.replace("depth: 192", "depth: 192, shared_bandwidth: -1")}, "shared_bandwidth: -1, expected a number above 0"),
        ({"arch": V04.replace("depth: 192", "depth: 9000000000000000000")}, r"<= 9223372036854775807 - at `\$.levels\[0\].capacity_bits"),
        (changed("mapping", "type: bypass", "type: by"), "type: 'by', expected temporal, spatial, datatype or bypass"),
        ({"map": MAP_FILE.replace("[0:2)", "[0:2,1)")}, r"map.txt, line 5: .* has a residual"),
        ({"map": MAP_FILE + "\nhello"}, "map.txt, line 19: 'hello', expected a level"),
        ({"arch": V04, "again": V03}, "again.yaml: a second architecture, expected one"),
    ],
)
def test_errors_name_file_line_and_expectation(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path, **texts)


def test_what_timeloop_cannot_say_is_not_written() -> None:
    plugin = registry.load("formats", "timeloop")
    op = matmul(p=4, c=4, k=4)
    first = next(case for _, case in cases.read(cases.DATA) if case is not None)
    base = cases.architecture(first.arch)
    with pytest.raises(InvalidInput, match=r"levels\.Far: has a network"):
        plugin.write(Document(architecture=Architecture("a", base.compute, (*base.levels, Level("Far", network=Network())))))
    with pytest.raises(InvalidInput, match="function: 'gelu'"):
        plugin.write(Document(operator=elementwise("gelu", {"P": 4})))
    ragged = Mapping((LevelMapping("DRAM", (), (Loop("P", 3, ragged=True),)),))
    with pytest.raises(InvalidInput, match="ragged loops"):
        plugin.write(Document(operator=op, mapping=ragged))
    with pytest.raises(InvalidInput, match="needs the operator beside it"):
        plugin.write(Document(mapping=ragged))
