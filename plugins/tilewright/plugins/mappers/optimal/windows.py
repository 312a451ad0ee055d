"""How a tensor with sliding windows may go on sliding from one block to the next.

The reference tool visits the first two indices of each loop (see `loopnest.traffic`). Of the loops outside of a tile that move it,
the innermost slides: only what is new is fetched. Further out, a loop along the same window may look like no move at all, or
like the same move again, and is then charged less than a true walk would. With tile steps v along a window that happens

* for two loops along two dims, if their steps are equal or one is twice the other (``related``);
* for two loops along one dim, if the inner one has exactly two trips;
* for three or more, in more ways than we care to list.

A slide is charged as if all its loops along the window covered a box without gaps or repeats, which is never more than the
tool counts; and it is only allowed to go on where one of these cases is possible, so that the bound stays tight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Dims = frozenset[int]


class Slide(NamedTuple):
    """The tensor with windows was charged down to `target`; what may still move it on the way there."""

    target: int = -1
    #: ``plain``: nothing; ``one``, ``two``: one or two dims have moved in one block; ``again``: the same dim in two blocks;
    #: ``pair``: one dim each in two blocks; ``many``: more than that.
    kind: str = ""
    window: Dims = frozenset()
    #: ``one``, ``again``: the dim that moved.
    dim: int = -1

    @property
    def related(self) -> bool:
        """True when it only counts if the steps along the window's dims are related."""
        return self.kind in ("two", "pair")


NO_SLIDE = Slide()


def openings(windows: list[Dims], moving: Dims, target: int, level: int) -> Iterator[tuple[Dims, Slide]]:
    """Slides that start in the block of `level` along one window and may go on: (dims that move there, slide)."""
    for window in windows:
        here = window & moving
        if len(window) != 2:
            yield here, Slide(target, "many", window)
            continue
        if len(here) == 2:
            yield here, Slide(target, "two", window)
        if target < level - 1:
            yield from ((frozenset((dim,)), Slide(target, "one", window, dim)) for dim in sorted(here))


def onward(slide: Slide, free: Dims) -> Iterator[tuple[dict[int, str], Slide]]:
    """What may move in a later block: (dim -> ``sweep`` any factor, ``strict`` any above 1, ``double`` exactly 2), and what follows."""
    here = sorted(slide.window & free)
    if slide.kind == "many":
        yield dict.fromkeys(here, "sweep"), slide
        return
    yield {}, slide
    many = Slide(slide.target, "many", slide.window)
    for dim in here:
        if slide.kind == "one" and dim != slide.dim:
            yield {dim: "strict"}, Slide(slide.target, "pair", slide.window)
        elif slide.kind in ("one", "again") and dim == slide.dim:
            yield {dim: "double"}, slide._replace(kind="again")
        elif slide.kind != "plain":
            yield {dim: "strict"}, many
    if len(here) == 2 and slide.kind != "plain":
        yield dict.fromkeys(here, "strict"), many
