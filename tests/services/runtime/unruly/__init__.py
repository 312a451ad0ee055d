"""Installs the unruly plugins into a folder, the way that pip lays out a distribution."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).with_name("tilewright_unruly.py")
ENTRY_POINTS = """\
[tilewright.mappers.v1]
unruly = tilewright_unruly:Unruly
unable = tilewright_unruly:Unable
missing = tilewright_unruly_missing:Missing
"""


def install(folder: Path) -> Path:
    """Put the distribution into `folder`; returns the path of its module."""
    info = folder / "tilewright_unruly-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tilewright-unruly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    module = folder / SOURCE.name
    module.write_text(SOURCE.read_text())
    return module
