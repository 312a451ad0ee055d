"""The passes of a model that a profile needs: workloads loaded each once, and a generation as the sum of its passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .plugin import Options
from .profile import Counted
from .steps import summed
from .workload import Workload

Count = Callable[[Workload], Sequence[Counted]]


class Loader:
    """One model of a frontend at any options, each loaded once; `load_many` of the frontend is used where it has one."""

    def __init__(self, frontend: Any, source: str) -> None:
        self._frontend, self._source = frontend, source
        #: What was loaded, with the options that it was asked for with.
        self.loaded: list[tuple[Options, Workload]] = []

    def __call__(self, options: Options) -> Workload:
        """The workload at `options`; `InvalidInput` from the frontend."""
        found = self._find(options)
        return found if found is not None else self._keep(options, self._frontend.load(self._source, options))

    def ahead(self, wanted: Sequence[Options]) -> None:
        """Load several at once, where the frontend has a way to do that; else they are loaded when they are asked for."""
        many = getattr(self._frontend, "load_many", None)
        missing = [options for options in wanted if self._find(options) is None]
        if many is not None and len(missing) > 1:
            for options, workload in zip(missing, many(self._source, missing), strict=True):
                self._keep(options, workload)

    def _find(self, options: Options) -> Workload | None:
        return next((workload for known, workload in self.loaded if known == options), None)

    def _keep(self, options: Options, workload: Workload) -> Workload:
        self.loaded.append((options, workload))
        return workload


def generation(loader: Loader, count: Count, options: Options, tokens: int) -> tuple[Workload, list[Counted]]:
    """The last pass of a generation of `tokens` tokens, and the figures of every node summed over all passes.

    The prompt has ``seq`` tokens; its own pass makes the first token. Without it the first token is made from nothing but itself.
    Operators of the prompt's pass that no step has are named ``prompt: NODE``.
    """
    rest = {name: value for name, value in options.items() if name not in ("seq", "ctx", "decode")}
    prompt = options.get("seq", 0)
    assert isinstance(prompt, int)
    first, last = (prompt + 1, prompt + tokens - 1) if prompt else (1, tokens)

    def step(context: int) -> Options:
        return {**rest, "decode": True, "ctx": context}

    loader.ahead([step(context) for context in dict.fromkeys((first, (first + last) // 2, last)) if first <= context <= last])
    items = summed(lambda context: count(loader(step(context))), first, last)
    if not prompt:
        return loader(step(last)), items
    opening = loader({**rest, "seq": prompt})
    made = {(item.node, item.kind): item for item in items}
    for item in count(opening):
        key = (item.node, item.kind)
        if key in made:
            made[key] = _plus(made[key], item)
        else:
            made[key] = item if first > last else msgspec.structs.replace(item, node=f"prompt: {item.node}")
    return loader(step(last)) if first <= last else opening, list(made.values())


def _plus(one: Counted, other: Counted) -> Counted:
    figures = {}
    for name in ("flops", "read_bytes", "write_bytes", "external_bytes", "cycles"):
        x, y = getattr(one, name), getattr(other, name)
        figures[name] = None if x is None or y is None else x + y
    return msgspec.structs.replace(one, **figures)
