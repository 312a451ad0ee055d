"""All that decides the bytes of a kernel, and the C templates they are put into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright.protocol.kernel import ElementType, InstructionLibrary
from tilewright.protocol.workload import OUTPUTS, WEIGHTS

from .finish import NOTHING, Finish
from .numbers import C_TYPES, Numbers
from .operands import Operand, Product
from .schedule import Tile, multiplies_by_lane, stores_words
from .tiles import Blocks, balanced

_TEMPLATES = Path(__file__).parent / "templates"
#: Lanes of four-byte words that the longest scalable vector may have (2048 bits).
MOST_LANES = 64


@dataclass(frozen=True)
class Plan:
    """Name, operator, number format, register tile, cache blocks and instruction set of a kernel."""

    name: str
    product: Product
    numbers: Numbers
    tile: Tile
    blocks: Blocks
    library: InstructionLibrary
    finish: Finish = NOTHING
    #: 1: the operator's own entry point adds to what is in the result.
    beta: int = 0
    #: The weights can be packed once, ahead of many calls.
    prepack: bool = False
    #: Only the operator's own size can be computed: fewer tiles, for trials.
    only_own_size: bool = False

    @property
    def lanes(self) -> int:
        """Columns of one vector (the fewest, where the length is known at run time)."""
        return self.library.lanes[self.numbers.result]

    def word(self, tensor: str) -> ElementType:
        """Type of a tensor's words in memory."""
        return "i8" if tensor == OUTPUTS and self.finish.narrows else self.numbers.word(tensor)

    def c_type(self, tensor: str) -> str:
        """The same in C."""
        return C_TYPES[self.word(tensor)]

    @property
    def has_gemm(self) -> bool:
        """The bare product is an entry point too."""
        return self.product.is_matrix_product and not self.finish.steps and not self.only_own_size

    @property
    def ready(self) -> str:
        """Side whose panels may be packed ahead: ``a``, ``b``, or none."""
        return ("a" if self.product.a.tensor == WEIGHTS else "b") if self.prepack else ""

    @property
    def most_depth(self) -> int:
        """Depth that the work space holds at once; where results are narrowed, all of it."""
        return max(self.product.shape[2], 64) if self.finish.narrows else self.blocks.depth

    @property
    def a_in_place(self) -> bool:
        """Tiles can read A where it lies. Multiplying by lanes takes whole vectors of a packed A."""
        return self.numbers.in_place(self.product.a.tensor) and not multiplies_by_lane(self.library, self.numbers)

    @property
    def row_strips(self) -> bool:
        """A must be converted, but tiles can broadcast from whole rows of it."""
        return not self.numbers.in_place(self.product.a.tensor) and not multiplies_by_lane(self.library, self.numbers)

    @property
    def b_in_place(self) -> bool:
        """Tiles can read B where it lies."""
        return self.numbers.in_place(self.product.b.tensor)

    @property
    def packs_b(self) -> bool:
        """The first strip's tile packs the B it reads."""
        return self.b_in_place and self.product.b.plain and self.product.b.unit and self.blocks.pack_b

    @property
    def packs_a(self) -> bool:
        """The first panel's tiles pack the A they read."""
        return self.a_in_place and self.product.a.plain and self.blocks.pack_a and stores_words(self.library, self.numbers)

    @property
    def first_rows(self) -> int:
        """Rows of the first strip at the operator's own size."""
        m = self.product.shape[0]
        block = -(-m // -(-m // self.blocks.rows))
        return -(-block // -(-block // self.tile.rows))

    @property
    def first_vectors(self) -> int:
        """Vectors of the first panel at the operator's own size."""
        vectors = -(-self.product.shape[1] // self.lanes)
        block = max(balanced(vectors, self.blocks.columns // self.lanes)) if self.blocks.strips_first else vectors
        return max(balanced(block, self.tile.vectors))

    def met(self) -> set[tuple[int, int, bool]]:
        """(rows, vectors, last vector partial) of the tiles that the operator's own size meets."""
        m, n, _ = self.product.shape
        heights = {height for block in balanced(m, self.blocks.rows) for height in balanced(block, self.tile.rows)}
        vectors = -(-n // self.lanes)
        blocks = balanced(vectors, self.blocks.columns // self.lanes) if self.blocks.strips_first else {vectors: 1}
        widths = {width for block in blocks for width in balanced(block, self.tile.vectors)}
        return {(height, width, partial) for height in heights for width in widths for partial in (False, n % self.lanes > 0)}

    @property
    def most_a(self) -> int:
        """Items of the work space for A."""
        packs = self.blocks.pack_a or not (self.a_in_place and self.product.a.plain)
        return (self.blocks.rows if packs else 0) * self._depth + 16 * (self.tile.rows + 1)

    @property
    def most_b(self) -> int:
        """Items of the work space for B: one panel, or a block of columns."""
        lanes = MOST_LANES if self.library.scalable else self.lanes
        panel = self.tile.vectors * lanes
        columns = max(panel, self.blocks.columns if self.blocks.strips_first else 0)
        return self._depth * columns + 32 * panel

    @property
    def _depth(self) -> int:
        return -(-self.most_depth // self.numbers.group) * self.numbers.group

    def operand(self, side: str) -> Operand:
        """``a`` or ``b``."""
        return self.product.a if side == "a" else self.product.b


def fill(template: str, values: Mapping[str, object]) -> str:
    """A template file with every ``@NAME@`` replaced."""
    text = (_TEMPLATES / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
