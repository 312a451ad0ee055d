"""Content keys: equal questions have equal keys, whoever asks and whenever."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from typing import Any

from .codec import canonical

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def content_key(value: Any) -> str:
    """sha256 (hex) of the canonical bytes of a value."""
    return hashlib.sha256(canonical(value)).hexdigest()


def result_key(stage: str, request: Any, fingerprint: str) -> str:
    """``<stage>.<sha256>`` of a resolved request and the code that answers it (letters, digits and one dot: a valid KV key)."""
    return f"{stage}.{hashlib.sha256(canonical({'stage': stage, 'code': fingerprint}) + canonical(request)).hexdigest()}"


def new_run_id() -> str:
    """A sortable id of 20 characters ``[0-9a-z]``: 10 of time (ms), 10 random."""
    value = int(time.time() * 1000)
    stamp = "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(45, -1, -5))
    return stamp + "".join(secrets.choice(_CROCKFORD) for _ in range(10))


def message_id(run: str, task: str, generation: int, kind: str) -> str:
    """``<run>.<task>.<generation>.<kind>``: the id that makes a publish happen once."""
    return f"{run}.{task}.{generation}.{kind}"


def worker_id(service: str) -> str:
    """Names a worker process on this host."""
    return f"{service}-{os.uname().nodename}-{os.getpid()}"
