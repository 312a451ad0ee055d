"""Reports of validation suites, and the files they compare with."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tilewright.protocol import validation
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.validation import ValidationReport


def test_figures_of_a_report() -> None:
    report = ValidationReport.of("s", Path("f"), [0.0, 0.01, 0.05], skipped=2)
    assert (report.suite, report.file, report.cases, report.exact, report.within_1pct, report.skipped) == ("s", "f", 3, 1, 2, 2)
    assert report.mape == pytest.approx(2.0)
    assert report.max_error == pytest.approx(5.0)
    assert ValidationReport.of("s", "f", [0.5], exact=1, groups={"inner": report}).groups["inner"].exact == 1


def test_without_cases_there_is_no_error() -> None:
    report = ValidationReport.of("s", "f", [])
    assert (report.cases, report.exact, report.mape, report.max_error) == (0, 0, None, None)


@pytest.mark.parametrize("content", [b"", b"x", b"plain text", b"\x00" * 1000])
def test_plain_and_gzipped_files_read_the_same(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    assert validation.read(tmp_path / "plain") == validation.read(tmp_path / "packed") == content


PACKED = gzip.compress(bytes(range(256)) * 9)


@pytest.mark.parametrize(
    "broken",
    [PACKED[:2], PACKED[:20], PACKED[:-3], PACKED[:12] + b"\xff" * 40 + PACKED[52:], PACKED[:-8] + b"\x00" * 8],
    ids=["magic only", "cut early", "cut late", "wrong data", "wrong checksum"],
)
def test_a_broken_archive_is_bad_input(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "cases.gz").write_bytes(broken)
    with pytest.raises(InvalidInput, match=r"cases\.gz: cannot be read: "):
        validation.read(tmp_path / "cases.gz")


def test_a_missing_file_and_a_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: cannot be read: No such file or directory"):
        validation.read(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        validation.read(tmp_path)


def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_BYTES", 1 << 20)
    for size, fits in ((1 << 20, True), ((1 << 20) + 1, False)):
        (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * size))
        if fits:
            assert len(validation.read(tmp_path / "bomb.gz")) == size
        else:
            with pytest.raises(InvalidInput, match=r"bomb\.gz: more than 1 MiB"):
                validation.read(tmp_path / "bomb.gz")
