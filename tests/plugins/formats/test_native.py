"""The format of our own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Document, Format
from tilewright.protocol.workload import conv2d


@pytest.fixture
def native() -> Format:
    loaded: Format = registry.load("formats", "native")
    return loaded


@pytest.mark.parametrize("target", ["gemmini", "simba", "tpu_like", "eyeriss"])
def test_a_whole_description_comes_back(native: Format, tmp_path: Path, target: str) -> None:
    plugin = registry.load("targets", target)
    architecture = plugin.architecture()
    mapping = Mapping(tuple(LevelMapping(level.name, temporal=(Loop("P", 2),), keep=level.keeps) for level in architecture.levels))
    operator = conv2d(r=3, s=3, p=16, q=16, c=8, k=8, padding=(1, 1))
    document = Document(operator, architecture, plugin.constraints(), mapping)
    written = native.write(document)
    assert sorted(written) == ["architecture.yaml", "constraints.yaml", "mapping.yaml", "operator.yaml"]
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    assert native.read([str(tmp_path / name) for name in written]) == document
    assert str(mapping).splitlines()[0] in written["mapping.yaml"]


def test_only_what_is_there_is_written(native: Format) -> None:
    assert native.write(Document()) == {}
    assert list(native.write(Document(mapping=Mapping((LevelMapping("DRAM"),))))) == ["mapping.yaml"]


def test_no_files_describe_nothing(native: Format) -> None:
    assert native.read([]) == Document()


def test_errors_name_the_file(native: Format, tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text("architecture: {name: chip, compute: {name: MAC, mesh: [4, 4]}, levels: [{name: DRAM, mesh: 3}]}\n")
    with pytest.raises(InvalidInput, match=r"chip.yaml:1:15: architecture: DRAM: mesh 3 x 1 does not divide that of MAC, 4 x 4"):
        native.read([str(path)])
