"""What a service's ``perform(job, host)`` works with: plugins, the contexts they work in, and a voice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from tilewright.protocol import registry
from tilewright.protocol.context import COST_MODEL, HostContext
from tilewright.protocol.errors import InvalidInput, TilewrightError, suggest
from tilewright.protocol.plugin import Budget, Kind, Options

from .frames import Alive, FromChild, Note, Saved

#: Seconds between two signs of life, and between two reports of progress; what comes in between is dropped.
QUIET = 0.2


class Unsolvable(TilewrightError):
    """There is no answer to this job, however often it is tried: e.g. no hardware within the limits."""


class Host:
    """The host of one job."""

    def __init__(self, send: Callable[[FromChild], None], allowed: frozenset[str] = frozenset(), checkpoint_every: float = 5.0) -> None:
        self._send = send
        self._every = checkpoint_every
        self._allowed = allowed
        self._loaded: dict[tuple[Kind, str], Any] = {}
        self._said = {"alive": 0.0, "progress": 0.0}
        #: True once the worker asked to stop.
        self.cancelled = False
        #: What an earlier attempt at this job kept (see `checkpoints`); empty when there was none.
        self.saved = b""
        self._kept = time.monotonic()

    def plugin(self, kind: Kind, name: str) -> Any:
        """A plugin, the same instance for the whole job; `InvalidInput` when the service's allow-list lacks it."""
        if (kind, name) not in self._loaded:
            ref = registry.find(kind, name)
            if self._allowed and self._allowed.isdisjoint((ref.distribution, f"{ref.kind}:{ref.name}")):
                raise InvalidInput(f"{kind[:-1]} {name!r} of {ref.distribution} is not allowed on this service (TILEWRIGHT_PLUGINS)")
            self._loaded[kind, name] = registry.load(kind, name)
        return self._loaded[kind, name]

    @property
    def model(self) -> Any:
        """The simulator plugin that is the one cost model (`evaluate`, `cost`, `violations`)."""
        return self.plugin("simulators", COST_MODEL)

    def context(
        self,
        kind: Kind,
        name: str,
        budget: Budget = Budget(),  # noqa: B008 (immutable)
        seed: int = 0,
        *,
        granted: tuple[str, ...] = (),
        observe: Callable[[Any], None] = lambda evaluation: None,
        used: int = 0,
    ) -> HostContext:
        """The context for a plugin of this job. Whatever it asks of its context is a sign of life."""
        return HostContext(
            kind,
            name,
            budget,
            seed,
            granted=granted,
            cancelled=self._asked,
            progress=self._progressed,
            load=self.plugin,
            observe=observe,
            used=used,
        )

    def _asked(self) -> bool:
        self.alive()
        return self.cancelled

    def alive(self) -> None:
        """Tell the worker that the job is not stuck."""
        if self._turn("alive"):
            self._send(Alive())

    def _progressed(self, text: str, figures: dict[str, float]) -> None:
        if self._turn("progress"):
            self._send(Note("progress", text, figures))

    def partial(self, text: str, **figures: float) -> None:
        """Tell people about the best answer so far."""
        self._send(Note("partial", text, figures))

    def save(self, make: Callable[[], bytes]) -> None:
        """Have a checkpoint kept, unless one was a short while ago."""
        now = time.monotonic()
        if now - self._kept >= self._every:
            self._kept = now
            self._send(Saved(make()))

    def _turn(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._said[what] < QUIET:
            return False
        self._said[what] = now
        return True


def check_options(kind: Kind, name: str, known: Iterable[str], options: Options) -> None:
    """Refuse options that a plugin does not have; `InvalidInput` suggests the one that was meant."""
    for option in options:
        if option not in known:
            raise InvalidInput(f"options.{option}: {kind[:-1]} {name!r} has no such option{suggest(option, known)}")
