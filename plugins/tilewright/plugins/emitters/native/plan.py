"""All that decides the bytes of a kernel, and the C templates they are put into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright.protocol.kernel import InstructionLibrary

from .operands import Product
from .schedule import Tile
from .tiles import Blocks

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a kernel."""

    name: str
    product: Product
    tile: Tile
    blocks: Blocks
    library: InstructionLibrary

    @property
    def lanes(self) -> int:
        """Columns of one vector."""
        return self.library.lanes["f32"]


def fill(template: str, values: Mapping[str, object]) -> str:
    """A template file with every ``@NAME@`` replaced."""
    text = (_TEMPLATES / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
