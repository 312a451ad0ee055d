"""Processor cores as targets: their caches are storage levels, their vector instructions a library for the kernel emitters.

`core` holds what all of them share: how a core becomes an architecture, and its design space of cache sizes.
"""

from __future__ import annotations

from .avx2 import Avx2
from .avx512 import Avx512
from .neon import Neon
from .rvv import Rvv

__all__ = ["Avx2", "Avx512", "Neon", "Rvv"]
