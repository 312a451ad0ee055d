"""DOSA's differentiable model: five access counts per layer, hardware that follows from the mappings, energy and latency.

Source: Hong et al., "DOSA: Differentiable Model-Based One-Loop Search for DNN Accelerators", MICRO 2023, and its released code
(github.com/ucb-bar/dosa, BSD-2-Clause). These are the method's own formulas; its results are scored by the one cost model.

Shapes: ``...`` any leading batch (starts, orders), ``N`` layers, ``D`` = 7 dims, ``B`` = 28 loops of a nest, innermost first.
A factor of at most 1 counts as 1 and its loop as absent; comparisons have no gradient. Products of factors are sums of logarithms.
Energies are in uJ, latencies in cycles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .layers import DIMS, INNER_ORDER, C, K, Layers, N, P, Q, R, S

Tensor = torch.Tensor

W_DIMS, I_DIMS, O_DIMS = (R, S, C, K), (R, S, P, Q, C, N), (P, Q, K, N)
#: Loop orders at DRAM that are tried, innermost first: weight, input, output stationary.
DATAFLOWS = ((P, Q, N, R, S, C, K), (K, R, S, P, Q, C, N), (R, S, C, K, P, Q, N))
#: pJ of a multiply-accumulate, and of an access to a register and to DRAM (one word).
MAC_PJ, REGISTER_PJ, DRAM_PJ = 0.5608, 0.48746172, 100.0
#: pJ of an SRAM access, constant and per KiB: per 32-bit word and KiB of one column's bank, per byte and KiB of the scratchpad.
ACCUMULATOR_PJ, SCRATCHPAD_PJ = (1.94, 0.1005), (0.49, 0.02513)
#: Words per cycle: of all registers, of one accumulator bank, of the scratchpad per array column, of DRAM.
REGISTER_BANDWIDTH, ACCUMULATOR_BANDWIDTH, SCRATCHPAD_BANDWIDTH, DRAM_BANDWIDTH = 10000.0, 2.0, 2.0, 8.0
SMALLEST_ARRAY = 2.0
#: Relative error, at most, of a product that was summed up as logarithms.
INEXACT = 1e-10


class Factors(NamedTuple):
    """Real-valued factors, levels innermost first: spatial ``[..., N, 3, D]`` (none at DRAM) and temporal ``[..., N, 4, D]``."""

    spatial: Tensor
    temporal: Tensor


class Needs(NamedTuple):
    """What each layer needs, ``[..., N]``: side of the array, words of the scratchpad, words of one accumulator bank."""

    array: Tensor
    weights: Tensor
    inputs: Tensor
    outputs: Tensor


class Hardware(NamedTuple):
    """Side of the array and KiB of the memories, ``[...]`` each."""

    array: Tensor
    scratchpad: Tensor
    accumulator: Tensor

    def whole(self) -> Hardware:
        """What can be built: whole numbers, memories rounded up and the array down (what the arithmetic is off by set aside)."""
        below, above = 1 - INEXACT, 1 + INEXACT
        return Hardware(torch.floor(self.array * above), torch.ceil(self.scratchpad * below), torch.ceil(self.accumulator * below))


class Costs(NamedTuple):
    """uJ and cycles of one run of each layer, ``[..., N]``."""

    energy: Tensor
    cycles: Tensor


class Orders:
    """Loop orders at DRAM with everything about a nest that follows from them alone."""

    def __init__(self, order: NDArray[np.int64]) -> None:
        """`order` is int64[..., N, D]: dims innermost first."""
        lead = order.shape[:-1]
        inner = np.broadcast_to(np.array(INNER_ORDER * 3), (*lead, 3 * len(DIMS)))
        dims = np.concatenate([inner, order], axis=-1)
        level = np.repeat(np.arange(4), len(DIMS))
        #: int64[..., N, B]: column of each loop among the logarithms of all factors.
        self.index = torch.as_tensor((3 + level) * len(DIMS) + dims)
        first, second = order[..., 0], order[..., 1]
        pair = ((first == R) & (second == P)) | ((first == S) & (second == Q))
        slides = np.isin(order, (P, Q, R, S))
        moving = np.take_along_axis(order, slides.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        moving = np.where(pair, second, moving)
        place = pair.astype(np.int64)
        special = np.take_along_axis(order, place[..., None], axis=-1)[..., 0] == moving
        position = np.arange(dims.shape[-1])
        is_special = (position == (21 + place)[..., None]) & special[..., None]
        skipped = pair[..., None] & (position == 21)
        #: [4, ..., N, B]: loops that start the product of W into registers, O into the accumulator, W and I into the scratchpad.
        self.starts = torch.as_tensor(
            np.stack(
                [
                    np.isin(dims, W_DIMS) & (level >= 1),
                    np.isin(dims, O_DIMS) & (level >= 2),
                    np.isin(dims, W_DIMS) & (level >= 3),
                    np.isin(dims, I_DIMS) & (level >= 3) & ~skipped,
                ]
            )
        )
        within = [np.broadcast_to(level >= low, dims.shape) for low in (1, 2, 3)]
        #: [4, ..., N, B]: loops that may be multiplied.
        self.multiplied = torch.as_tensor(np.stack([*within, within[2] & ~skipped & ~is_special]))
        self.rows = torch.as_tensor(np.isin(dims, (P, Q)))
        self.special = torch.as_tensor(special)
        self.moving, self.pair = (torch.as_tensor(each) for each in (moving, pair))
        self.first_r, self.first_s = torch.as_tensor(first == R), torch.as_tensor(first == S)


#: Column of the logarithms of all factors: 3 x D spatial ones, then 4 x D temporal ones.
def _columns(spatial: dict[int, tuple[int, ...]], temporal: dict[int, tuple[int, ...]]) -> Tensor:
    column = torch.zeros(7 * len(DIMS), dtype=torch.float64)
    for level, dims in spatial.items():
        column[[level * len(DIMS) + d for d in dims]] = 1.0
    for level, dims in temporal.items():
        column[[(3 + level) * len(DIMS) + d for d in dims]] = 1.0
    return column


_ALL = tuple(range(len(DIMS)))
#: Products of factors that do not depend on orders, one column each.
_PRODUCTS = torch.stack(
    [
        _columns({1: W_DIMS, 2: W_DIMS}, {1: W_DIMS, 2: W_DIMS}),  # words of W in the scratchpad
        _columns({1: (P, Q, C, N), 2: (P, Q, C, N)}, {1: (C, N), 2: (C, N)}),  # words of I but for its window
        _columns({1: (P, Q, K, N)}, {1: (K, N)}),  # words of O in a bank but for P and Q
        _columns({1: _ALL, 2: _ALL}, {}),  # copies of a register's word
        _columns({2: _ALL}, {}),  # copies of a bank's word
        _columns({1: (C, N), 2: (C, N)}, {1: (C, N), 2: (C, N)}),  # channels of I in the scratchpad
        *(_columns({}, {0: (d,), 1: (d,), 2: (d,)}) for d in (P, Q, R, S)),  # extents below DRAM
        *(_columns({}, {1: (d,), 2: (d,)}) for d in (R, S)),  # taps in the scratchpad
        *(_columns({}, {2: (d,)}) for d in (P, Q)),
    ],
    dim=1,
)


class Model:
    """The model of some layers. `published` keeps what the released code does wrong (see the package)."""

    def __init__(self, layers: Layers, *, published: bool = False) -> None:
        self.published = published
        self.bounds = torch.as_tensor(layers.bounds, dtype=torch.float64)
        self.counts = torch.as_tensor(layers.counts)
        self.outputs = self.bounds[:, list(O_DIMS)].prod(dim=1)
        self.strides = torch.as_tensor(layers.strides, dtype=torch.float64)

    def complete(self, spatial: Tensor, temporal: Tensor) -> Factors:
        """Factors of the inner three levels (``[..., N, 3, D]`` each) with those at DRAM that make the products meet the bounds."""
        outer = self.bounds / (spatial * temporal).prod(dim=-2)
        return Factors(spatial, torch.cat([temporal, outer.unsqueeze(-2)], dim=-2))

    def prepare(self, factors: Factors) -> Prepared:
        """What does not depend on the order at DRAM."""
        return Prepared(self, factors)

    def hardware(self, needs: Needs) -> Hardware:
        """The smallest hardware (real-valued) that all layers run on."""
        array = needs.array.amax(dim=-1).clamp(min=SMALLEST_ARRAY)
        scratchpad = (needs.weights + needs.inputs).amax(dim=-1) / 1024
        return Hardware(array, scratchpad, array * needs.outputs.amax(dim=-1) * 4 / 1024)

    def costs(self, prepared: Prepared, orders: Orders, hardware: Hardware) -> Costs:
        """Energy and latency of every layer on the hardware."""
        mac, register, accumulator, scratchpad, dram = prepared.accesses(orders)
        array, scratchpad_kib, accumulator_kib = (each.unsqueeze(-1) for each in hardware)
        rows, columns = prepared.factors.spatial[..., 1, C], prepared.factors.spatial[..., 2, K]
        accumulator_pj = ACCUMULATOR_PJ[0] + ACCUMULATOR_PJ[1] * accumulator_kib / array
        scratchpad_pj = SCRATCHPAD_PJ[0] + SCRATCHPAD_PJ[1] * scratchpad_kib
        energy = MAC_PJ * mac + REGISTER_PJ * register + accumulator_pj * accumulator + scratchpad_pj * scratchpad + DRAM_PJ * dram
        cycles = torch.maximum(mac / (rows * columns), register / REGISTER_BANDWIDTH)
        cycles = torch.maximum(cycles, accumulator / (ACCUMULATOR_BANDWIDTH * columns))
        cycles = torch.maximum(cycles, torch.maximum(scratchpad / (SCRATCHPAD_BANDWIDTH * array), dram / DRAM_BANDWIDTH))
        return Costs(1e-6 * energy, cycles)

    def totals(self, costs: Costs) -> Costs:
        """uJ and cycles of the whole network, ``[...]``."""
        return Costs((self.counts * costs.energy).sum(dim=-1), (self.counts * costs.cycles).sum(dim=-1))


class Prepared:
    """A batch of factors with the products that do not depend on orders."""

    def __init__(self, model: Model, factors: Factors) -> None:
        self._model, self.factors = model, factors
        spatial, temporal = factors
        lead = temporal.shape[:-2]
        every = torch.cat([spatial.reshape(*lead, -1), temporal.reshape(*lead, -1)], dim=-1)
        self._present = every.detach() > 1
        self._logs = torch.where(self._present, every, 1.0).log()
        products = (self._logs @ _PRODUCTS).exp().unbind(dim=-1)
        weights, self._inputs, outputs, self._register_copies, self._bank_copies, self._channels = products[:6]
        self._extents, taps, outer = products[6:10], products[10:12], products[12:]
        folded = (temporal[..., 0, P : Q + 1] * temporal[..., 1, P : Q + 1]).clamp(min=1.0).unbind(dim=-1)
        stride_p, stride_q = model.strides.unbind(dim=-1)
        window = ((folded[0] * outer[0] - 1) * stride_p + taps[0]) * ((folded[1] * outer[1] - 1) * stride_q + taps[1])
        self.needs = Needs(spatial[..., 1:, :].amax(dim=(-2, -1)), weights, self._inputs * window, outputs * folded[0] * folded[1])

    def accesses(self, orders: Orders) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Accesses in words, ``[..., N]`` each: multiply-accumulates, registers, accumulator, scratchpad, DRAM; at least 1."""
        model = self._model
        present, logs = (_take(each, orders.index) for each in (self._present, self._logs))
        started = (present & orders.starts).cumsum(dim=-1, dtype=torch.int16) > 0
        fills = torch.where(started & orders.multiplied, logs, 0.0).sum(dim=-1).exp()
        weights_register = fills[0] * self._register_copies
        outputs = fills[1] * self._bank_copies * self.needs.outputs
        weights = fills[2] * self.needs.weights
        inputs = fills[3] * self._channels * self._windows(orders)
        if model.published:
            rows = (present & ~orders.rows).cumsum(dim=-1, dtype=torch.int16) == 0
            macs = weights_register * torch.where(rows & orders.rows, logs, 0.0).sum(dim=-1).exp()
        else:
            macs = self._logs.sum(dim=-1).exp()
        added = macs / self.factors.spatial[..., 1, C]
        counts = (
            macs,
            macs + weights_register,
            2 * added - model.outputs + outputs,
            weights_register + weights + macs / self.factors.spatial[..., 2, K] + inputs,
            weights + inputs + 2 * outputs - model.outputs,
        )
        return tuple(count.clamp(min=1.0) for count in counts)  # type: ignore[return-value]

    def _windows(self, orders: Orders) -> Tensor:
        """Words of one channel of I that enter the scratchpad while the innermost DRAM loop slides its window, ``[..., N]``.

        The first tile comes whole (the published code counts it last), each further one by what is new in it.
        """
        p, q, r, s = self._extents
        outer = self.factors.temporal[..., 3, :]
        if not self._model.published:
            outer = torch.where(outer.detach() > 1, outer, 1.0)
        r = torch.where(orders.first_r, r * outer[..., R], r)
        s = torch.where(orders.first_s, s * outer[..., S], s)
        stride_p, stride_q = self._model.strides.unbind(dim=-1)
        wide, high = (p - 1) * stride_p, (q - 1) * stride_q
        factor = _take(outer, orders.moving.unsqueeze(-1)).squeeze(-1)
        further = torch.where(orders.special & (factor.detach() > 1), factor - 1, 0.0)
        along_p = (wide + _new(r, p, stride_p, orders.pair)) * (high + s)
        along_q = (wide + r) * (high + _new(s, q, stride_q, orders.pair))
        new = torch.where(orders.moving == P, along_p, torch.where(orders.moving == Q, along_q, 0.0))
        return new * further + (wide + r) * (high + s)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Values along the last axis by index, which may have further axes in front."""
    return torch.take_along_dim(values[(None,) * (index.dim() - values.dim())], index, dim=-1)


def _new(taps: Tensor, extent: Tensor, stride: Tensor, pair: Tensor) -> Tensor:
    """What a sliding window adds to `extent - 1` strides; `pair` when the loop over the taps lies just inside the sliding one."""
    t, e = taps.detach(), extent.detach()
    beside = torch.where(e <= 1, taps, torch.where(e <= t * (1 + INEXACT), taps - 1, torch.maximum(taps, stride)))
    return torch.where(t <= 1, 1.0, torch.where(pair, beside, stride))
