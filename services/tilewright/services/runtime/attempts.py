"""How often a task has failed (KV ``tw_attempts``): hand-backs and dying workers do not count, deliveries are not counted at all."""

from __future__ import annotations

import msgspec

from tilewright.protocol.bus import Bucket
from tilewright.protocol.codec import decode, encode
from tilewright.protocol.errors import Conflict
from tilewright.protocol.messages import Failure
from tilewright.protocol.run import parse_task

#: Failures after which a task is given up.
MOST_FAILURES = 3


class Attempts(msgspec.Struct, frozen=True):
    """The failures of one task at one generation, oldest first."""

    failures: tuple[Failure, ...] = ()

    @property
    def exhausted(self) -> bool:
        """True when it is not to be tried again."""
        return len(self.failures) >= MOST_FAILURES


def _key(run: str, task: str, generation: int) -> str:
    """The stage comes first: a service may write below its own only."""
    return f"{parse_task(task)[0]}.{run}.{task}.{generation}"


async def attempts(bucket: Bucket, run: str, task: str, generation: int) -> Attempts:
    """What is known of a task."""
    entry = await bucket.get(_key(run, task, generation))
    return decode(entry.value, Attempts) if entry else Attempts()


async def add_failure(bucket: Bucket, run: str, task: str, generation: int, failure: Failure) -> Attempts:
    """Count one more failure; all of them."""
    key = _key(run, task, generation)
    while True:
        entry = await bucket.get(key)
        before = decode(entry.value, Attempts) if entry else Attempts()
        after = Attempts((*before.failures, failure))
        try:
            if entry is None:
                await bucket.create(key, encode(after))
            else:
                await bucket.update(key, encode(after), entry.revision)
        except Conflict:
            continue
        return after
