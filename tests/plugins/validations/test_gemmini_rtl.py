"""The suite on a part of its data that is quick to simulate; the figures are the RTL's."""

import gzip

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput

MATMUL = """# a comment
m,k,n,lat,cycles,read_bytes,read_reqs,write_bytes,write_reqs
1,256,768,40,20141,217344,4356,768,17
1,64,64,100,826,4160,65,64,1
31,30,66,40,1104,4896,140,2046,92
100,100,100,40,7302,31024,833,10000,437
128,64,256,100,9554,40960,896,32768,768
16,768,256,100,21197,233472,4800,4096,96
17,512,512,100,39844,270848,6280,8704,204
197,192,192,100,32254,112512,2142,37824,985
256,64,64,40,5825,20480,320,16384,256
64,64,64,100,2233,8192,128,4096,64
"""
CONV = """in,cin,cout,k,stride,pad,lat,cycles,ideal,mismatches
56,64,64,1,1,0,40,92362,50176,0
7,512,2048,1,1,0,40,278176,200704,0
"""


@pytest.fixture(scope="module")
def suite():
    return registry.load("validations", "gemmini-rtl")


def test_matrix_products_are_close_and_traffic_equal(suite, tmp_path):
    path = tmp_path / "points.csv.gz"
    path.write_bytes(gzip.compress(MATMUL.encode()))
    report = suite.run(str(path), {})
    assert report.cases == 10
    assert report.mape < 0.5
    assert report.within_1pct == 9
    assert report.max_error < 3
    assert report.groups["traffic (requests and bytes, read and written)"].exact == 10
    assert set(report.groups) > {"GEMV", "short M (<= 64)", "narrow N (<= 64)", "large"}


def test_convolutions_within_one_percent(suite, tmp_path):
    path = tmp_path / "conv.csv"
    path.write_text(CONV)
    report = suite.run(str(path), {})
    assert report.max_error < 1


def test_other_columns_are_refused(suite, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match=r"columns \['a', 'b'\]"):
        suite.run(str(path), {})


def test_text_where_numbers_belong_is_refused(suite, tmp_path):
    path = tmp_path / "text.csv"
    path.write_text(MATMUL.replace("1104", "many"))
    with pytest.raises(InvalidInput, match="many"):
        suite.run(str(path), {})


def test_files_that_cannot_be_read_are_bad_input(suite, tmp_path):
    for content in (b"\x1f\x8bnot packed", b"m k n\xff"):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(InvalidInput, match=r"bad\.csv: "):
            suite.run(str(tmp_path / "bad.csv"), {})
