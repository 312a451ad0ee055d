"""The suite on a few rows that are quick to simulate; cycles are FireSim's."""

import gzip

import pytest

from tilewright.plugins.validations.gemmini_firesim.rows import parse
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput

HEADER = (
    "mapping.mapping,arch.mem1_entries,arch.mem2_entries,prob.C,prob.K,prob.N,prob.P,prob.Q,prob.R,prob.S,prob.Wstride,"
    "dse.auto_tiling,target.gemmini_auto_cycle,target.gemmini_cycle\n"
)
ROWS = """\
L3[WIO] K8 - L2[WI] N1 K16X - L1[O] C4 P8 C16X - L0[W] P16,256,110592,64,128,1,128,1,1,1,1,1_1_80_1_64_96_1,7405.0,8874.0
L3[WIO] N1 - L2[WI] N1 K16X - L1[O] K8 C4 P8 C16X - L0[W] P16,1024,262144,64,128,1,128,1,1,1,1,1_1_80_1_64_96_1,6706.0,7648.0
L3[WIO] P2 - L2[WI] N1 K16X - L1[O] K8 C4 P4 C16X - L0[W] P16,512,147456,64,128,1,128,1,1,1,1,1_1_80_1_64_96_1,6854.0,6597.0
L3[WIO] K2 - L2[WI] N1 K16X - L1[O] K2 C8 P16 C16X - L0[W] P8,256,110592,128,64,1,128,1,1,1,1,1_1_128_1_128_64_1,7690.0,7164.0
L3[WIO] Q2 P2 - L2[WI] N1 K16X - L1[O] K8 C32 Q14 P14 C16X - L0[W] N1,3136,257024,512,128,1,28,28,1,1,1,1_1_23_22_240_16_1,632840,222570
"""


@pytest.fixture(scope="module")
def suite():
    return registry.load("validations", "gemmini-firesim")


@pytest.fixture(scope="module")
def measured(suite, tmp_path_factory):
    path = tmp_path_factory.mktemp("firesim") / "points.csv.gz"
    path.write_bytes(gzip.compress((HEADER + ROWS).encode()))
    return suite.run(str(path), {})


def test_given_mappings(measured):
    given = measured.groups["given mappings"]
    assert given.cases == 5
    assert given.mape < 12
    assert given.spearman >= 0.9


def test_library_tilings_are_compared_with_the_median_of_a_layer(measured):
    assert measured.groups["library tilings (median of a layer)"].cases == 3
    spread = measured.groups["repeats of one library tiling, against their median"]
    assert spread.cases == 5
    assert spread.max_error == pytest.approx(100 * (7405 / 6854 - 1))


def test_random_mappings_are_compared_where_the_array_could_run_them(suite, tmp_path):
    columns = HEADER.replace("dse.auto_tiling,target.gemmini_auto_cycle,", "")
    rows = (
        "L3[WIO] K8 - L2[WI] N1 K16X - L1[O] C8 P4 C16X - L0[W] P32,2048,1048576,128,128,1,128,1,1,1,1,15604.0\n"
        "L3[WIO] K8 - L2[WI] N1 K32X - L1[O] C8 P4 C16X - L0[W] P32,2048,1048576,128,128,1,128,1,1,1,1,15604.0\n"
    )
    path = tmp_path / "random.csv"
    path.write_text(columns + rows)
    group = suite.run(str(path), {}).groups["random mappings (clean rows)"]
    assert (group.cases, group.skipped) == (1, 1)
    assert group.max_error < 10


def test_images_are_square():
    text = HEADER + "L3[WIO] K8 - L2[WI] N1 K16X - L1[O] S3 R3 C4 Q2 P10 C16X - L0[W] P3,256,4096,64,128,1,60,6,3,3,1,,,1510389\n"
    (row,) = parse("one.csv", text.encode())
    assert (row.layer.P, row.layer.Q, row.layer.image) == (60, 60, (60, 60))
    assert row.auto is None
    assert row.tiles == 8 * 30 * 2


def test_parts_of_the_array_count_as_all_of_it():
    text = HEADER + "L3[WIO] C3 - L2[WI] N1 K10X - L1[O] K5 C16 C4X - L0[W] P8,256,4096,192,50,1,8,1,1,1,1,,,99\n"
    (row,) = parse("one.csv", text.encode())
    assert (row.layer.C, row.layer.K) == (192, 50)
    assert (row.mapped.C, row.mapped.K) == (768, 80)
    assert (row.tile["C"], row.tile["K"], row.tiles) == (256, 80, 3)
    (row,) = parse("one.csv", text.replace("C4X", "C32X").encode())
    assert not row.clean


def test_shipped_rows():
    from importlib import resources

    from tilewright.protocol import validation

    with resources.as_file(resources.files("tilewright.plugins.validations.gemmini_firesim") / "points.csv.gz") as shipped:
        rows = parse("points.csv.gz", validation.read(shipped))
    assert len(rows) == 96
    assert len({row.layer for row in rows}) == 29


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "columns mapping.mapping"),
        (HEADER + ROWS.replace("L0[W] P16", "P16", 1), "row 0: mapping"),
        (HEADER + ROWS.replace(",64,128,1,", ",many,128,1,", 1), "row 0: .*many"),
    ],
)
def test_other_files_are_refused(suite, tmp_path, text, said):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        suite.run(str(path), {})


def test_options_and_bytes_that_are_no_text(suite, tmp_path):
    with pytest.raises(InvalidInput, match="every: 0"):
        suite.run(None, {"every": 0})
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="expected text"):
        suite.run(str(tmp_path / "bad.csv"), {})
