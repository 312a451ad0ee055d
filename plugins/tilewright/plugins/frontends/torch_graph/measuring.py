"""Runs a real module on this CPU and says how long that takes: processor time, with its spread, and the share of every operator.

Wall time on a busy machine says little, so totals are processor time of this process, on one thread. Shares come from torch's
profiler, whose own times follow the wall clock; they are scaled to the total.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.profile import Measured, Measurement

#: Makes the arguments and keyword arguments of a module.
Given = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
#: Runs before those that count.
WARM_UP = 1
#: Smallest share of the total that is listed.
LEAST = 0.001


def measure(name: str, module: Any, given: Given, repeats: int, *, working: float = 0.0) -> Measurement:
    """Median processor time of `repeats` runs; `InvalidInput` when the module does not fit into memory, or cannot be run.

    A module on the meta device gets random weights; `given` makes its arguments and keyword arguments once it has them. `working`
    is how many bytes its largest operator reads and writes, where that is known.
    """
    import torch
    from torch.utils._pytree import tree_map_only

    if repeats < 1:
        raise InvalidInput(f"repeats: {repeats}, expected at least 1")
    _check_memory(name, module, working)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        real = _real(module).eval()
        with torch.no_grad():
            arguments, keywords = tree_map_only(torch.Tensor, _present, given(real))
            for _ in range(WARM_UP):
                real(*arguments, **keywords)
            seconds = [_once(real, arguments, keywords) for _ in range(repeats)]
            shares = _shares(real, arguments, keywords)
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise InvalidInput(f"{name}: cannot be run on this CPU: {type(error).__name__}: {error}") from error
    finally:
        torch.set_num_threads(threads)
    total = statistics.median(seconds)
    spread = statistics.pstdev(seconds) / statistics.fmean(seconds)
    operators = tuple(Measured(label, calls, share * total, flops) for label, calls, share, flops in shares if share >= LEAST)
    return Measurement(name, total, spread, repeats, os.getloadavg()[0], operators)


def _check_memory(name: str, module: Any, working: float) -> None:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    free = psutil.virtual_memory().available
    for what, needed in (("weights take", weights), ("weights and its largest operator take", weights + working)):
        if needed > 0.8 * free:
            raise InvalidInput(f"{name}: its {what} {needed / 1e9:.1f} GB, expected at most 80 % of the {free / 1e9:.1f} GB that are free")


def _real(module: Any) -> Any:
    """The module with small random weights where it has none."""
    import torch

    if not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        return module
    made = module.to_empty(device="cpu")
    tie = getattr(made, "tie_weights", None)
    if tie is not None:
        tie()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.02 + 0.01)  # positive: variances are among them
            else:
                tensor.zero_()
    return made


def _present(tensor: Any) -> Any:
    """A tensor that exists."""
    import torch

    return torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor


def _once(module: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> float:
    began = time.process_time()
    module(*arguments, **keywords)
    return time.process_time() - began


def _shares(module: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> list[tuple[str, int, float, float]]:
    """(operator with the shapes of its inputs, calls, share of the time, operations), the largest share first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True) as recorded:
        module(*arguments, **keywords)
    events = [event for event in recorded.key_averages(group_by_input_shape=True) if event.self_cpu_time_total > 0]
    total = math.fsum(event.self_cpu_time_total for event in events) or 1.0
    found = [
        (f"{event.key} {_shapes(event.input_shapes)}".strip(), int(event.count), event.self_cpu_time_total / total, float(event.flops or 0))
        for event in events
    ]
    return sorted(found, key=lambda item: -item[2])


def _shapes(shapes: Sequence[Any]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes if shape)
