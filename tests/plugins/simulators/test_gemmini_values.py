"""Values of simulated programs, bit for bit, against numpy on whole matrices and images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.plugins.simulators.gemmini import compiled, host, norm
from tilewright.plugins.simulators.gemmini.commands import (
    ACCUMULATE,
    ACCUMULATOR,
    FULL,
    GARBAGE,
    NORM_SHIFT,
    Compute,
    ConfigExecute,
    ConfigLoad,
    ConfigNorm,
    ConfigStore,
    Mvin,
    Mvout,
    Preload,
)
from tilewright.plugins.simulators.gemmini.functional import Values
from tilewright.plugins.simulators.gemmini.loop_matmul import IGELU, LAYERNORM, NONE, RELU, SOFTMAX
from tilewright.plugins.simulators.gemmini.machine import Machine
from tilewright.plugins.simulators.gemmini.tiling import ConvShape
from tilewright.plugins.simulators.gemmini.timing import simulate
from tilewright.protocol.errors import InvalidInput

SMALL = Machine(scratchpad_bytes=16 * 1024, accumulator_bytes=8 * 1024)
SIZE = 1 << 20


class Heap:
    """Memory with a bump allocator."""

    def __init__(self):
        self.bytes = np.zeros(SIZE, np.uint8)
        self.at = 64

    def put(self, array):
        start, data = self.at, np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self.bytes[start : start + len(data)] = data
        self.at = start + -(-len(data) // 64) * 64
        return start

    def get(self, start, shape, dtype):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[start : start + count].view(dtype).reshape(shape)


def rounded(values, scale):
    """Nearest, ties to even, saturated: in double precision, where every product of these tests is exact."""
    return np.clip(np.rint(values.astype(np.float64) * scale), -128, 127).astype(np.int8)


def small(rng, *shape):
    return rng.integers(-128, 128, shape, dtype=np.int64).astype(np.int8)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 70), n=st.integers(1, 70), k=st.integers(1, 70), a_transpose=st.booleans(), b_transpose=st.booleans(),
    bias=st.sampled_from(["none", "full", "row", "low"]), full=st.booleans(), relu=st.booleans(),
    shift=st.integers(0, 8), seed=st.integers(0, 99),
)  # fmt: skip
def test_matrix_products(m, n, k, a_transpose, b_transpose, bias, full, relu, shift, seed):
    b_transpose = b_transpose and not a_transpose
    rng, heap = np.random.default_rng(seed), Heap()
    a, b = small(rng, m, k), small(rng, k, n)
    d = small(rng, m, n) if bias == "low" else rng.integers(-9999, 9999, (1 if bias == "row" else m, n)).astype(np.int32)
    task = host.Matmul(
        m, n, k, heap.put(a.T if a_transpose else a), heap.put(b.T if b_transpose else b), heap.put(np.zeros((m, n), np.int32)),
        d=heap.put(d) if bias != "none" else 0, a_transpose=a_transpose, b_transpose=b_transpose, repeating_bias=bias == "row",
        low_d=bias == "low", full_c=full, activation=RELU if relu else NONE, scale=2.0**-shift,
    )  # fmt: skip
    Values(SMALL, heap.bytes).run(host.matmul(task, SMALL))
    exact = a.astype(np.int64) @ b.astype(np.int64) + (d.astype(np.int64) if bias != "none" else 0)
    if full:
        assert (heap.get(task.c, (m, n), np.int32) == exact).all()
    else:
        wanted = rounded(np.maximum(exact, 0) if relu else exact, 2.0**-shift)
        assert (heap.get(task.c, (m, n), np.int8) == wanted).all()


def direct(image, weights, bias, shape):
    """A convolution by its definition: one product per tap."""
    padded = np.pad(image.astype(np.int64), ((0, 0), (shape.padding,) * 2, (shape.padding,) * 2, (0, 0)))
    out = np.tile(bias.astype(np.int64), (shape.batch, shape.out_rows, shape.out_cols, 1))
    for y in range(shape.kernel):
        for x in range(shape.kernel):
            rows = y * shape.dilation + shape.stride * np.arange(shape.out_rows)
            cols = x * shape.dilation + shape.stride * np.arange(shape.out_cols)
            out += padded[:, rows][:, :, cols] @ weights[y, x].astype(np.int64)
    return out


def pooled(values, shape):
    """Maximum over windows; outside of the image is zero."""
    rows, cols = shape.pooled
    size, stride, pad = shape.pool_size, shape.pool_stride, shape.pool_padding
    padded = np.pad(values, ((0, 0), (pad, pad + size), (pad, pad + size), (0, 0)))
    windows = [padded[:, y : y + rows * stride : stride, x : x + cols * stride : stride] for y in range(size) for x in range(size)]
    return np.max([window[:, :rows, :cols] for window in windows], axis=0)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2), rows=st.integers(3, 14), cols=st.integers(3, 20), cin=st.integers(1, 40), cout=st.integers(1, 40),
    kernel=st.integers(1, 3), stride=st.integers(1, 2), padding=st.integers(0, 1), dilation=st.integers(1, 2),
    pool=st.sampled_from([None, (2, 2, 0), (3, 2, 1)]), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_convolutions(batch, rows, cols, cin, cout, kernel, stride, padding, dilation, pool, bias, seed):
    reach = (kernel - 1) * dilation + 1
    if kernel == 1:
        padding = 0
    if min(rows, cols) + 2 * padding < reach:
        return
    out_rows, out_cols = ((size + 2 * padding - reach) // stride + 1 for size in (rows, cols))
    if pool and min(out_rows, out_cols) + 2 * pool[2] < pool[0]:
        pool = None
    size, step, pad = pool or (0, 0, 0)
    shape = ConvShape(batch, rows, cols, cin, cout, out_rows, out_cols, kernel, stride, padding, dilation, size, step, pad)
    rng, heap = np.random.default_rng(seed), Heap()
    image, weights = small(rng, batch, rows, cols, cin), small(rng, kernel, kernel, cin, cout)
    offsets = rng.integers(-9999, 9999, cout).astype(np.int32) if bias else np.zeros(cout, np.int32)
    result = (batch, *shape.pooled, cout)
    task = host.Conv(
        shape, heap.put(image), heap.put(weights), heap.put(np.zeros(result, np.int8)), heap.put(offsets) if bias else 0, scale=2.0**-6
    )
    Values(SMALL, heap.bytes).run(host.conv(task, SMALL))
    wanted = rounded(direct(image, weights, offsets, shape), 2.0**-6)
    assert (heap.get(task.output, result, np.int8) == (pooled(wanted, shape) if pool else wanted)).all()


def test_residual_addition():
    rng, heap = np.random.default_rng(1), Heap()
    a, b = small(rng, 50, 70), small(rng, 50, 70)
    task = host.Add(50, 70, heap.put(a), heap.put(b), heap.put(np.zeros((50, 70), np.int8)), a_scale=0.5, b_scale=1.0, activation=RELU)
    Values(SMALL, heap.bytes).run(host.add(task, SMALL))
    wanted = np.clip(np.maximum(np.rint(a * 0.5) + b, 0), -128, 127)
    assert (heap.get(task.c, (50, 70), np.int8) == wanted).all()


def run_norm(activation, values, constants, scale=1.0):
    """Rows of int32 through the accumulator with an activation: the product of an identity with their digits in base 100."""
    rows, cols = values.shape
    heap = Heap()
    eye, zero = np.eye(rows, dtype=np.int8), np.zeros((rows, cols), np.int8)
    task = host.Matmul(
        rows,
        cols,
        rows,
        heap.put(eye),
        heap.put(zero),
        heap.put(zero),
        d=heap.put(values.astype(np.int32)),
        activation=activation,
        scale=scale,
    )
    machine = Machine()
    program = host.matmul(task, machine)
    program.insert(1, ConfigNorm(0, constants.qb, constants.qc, constants.qln2, constants.qln2_inv))
    Values(machine, heap.bytes).run(program)
    return heap.get(task.c, (rows, cols), np.int8)


def int32(value):
    return (int(value) + 2**31) % 2**32 - 2**31


def gelu_of(q, qb, qc):
    """I-BERT's i-GELU in Python integers."""
    sign = -1 if q < 0 else 1
    clipped = min(abs(q), -qb)
    return int32(q * (sign * int32(int32((clipped + qb) ** 2) + qc) + qc))


def exp_of(q, qb, qc, qln2, qln2_inv):
    """I-BERT's i-exp in Python integers."""
    z = (-q * qln2_inv) // 65536
    return int32((q + z * qln2 + qb) ** 2 + qc) >> min(z, 31)


def to_int8(value, scale):
    return int(np.clip(np.rint(np.float32(value) * np.float32(scale)), -128, 127))


def test_gelu():
    scale = 4 / 127
    constants = norm.gelu_constants(scale)
    values = np.arange(-300, 340).reshape(10, 64)
    unit = scale * (-0.2888) * (scale / math.sqrt(2)) ** 2 / 2
    got = run_norm(IGELU, values, constants, scale=unit * 16)
    wanted = [[to_int8(gelu_of(q, constants.qb, constants.qc), unit * 16) for q in row] for row in values.tolist()]
    assert (got == wanted).all()
    x = values * scale
    true = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    inside = np.abs(true * 16) < 127
    assert np.abs(got / 16 - true)[inside].max() < 0.05 + 1 / 32


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.002, 0.5), seed=st.integers(0, 999))
def test_gelu_of_any_scale(scale, seed):
    constants = norm.gelu_constants(scale)
    values = np.random.default_rng(seed).integers(-int(8 / scale) - 1, int(8 / scale) + 1, (5, 40))
    unit = 127 / max(1, max(abs(gelu_of(q, constants.qb, constants.qc)) for q in values.reshape(-1).tolist()))
    got = run_norm(IGELU, values, constants, scale=unit)
    assert got.tolist() == [[to_int8(gelu_of(q, constants.qb, constants.qc), unit) for q in row] for row in values.tolist()]


shapes = st.tuples(st.integers(1, 40), st.integers(1, 220))


@settings(max_examples=15, deadline=None)
@given(shape=shapes, scale=st.floats(0.003, 0.1), seed=st.integers(0, 999))
def test_softmax(shape, scale, seed):
    """Bit for bit I-BERT's; within 0.01 and the scale (a whole number of which stands for ln 2) of the true probabilities."""
    constants = norm.exp_constants(scale)
    values = np.random.default_rng(seed).integers(-500, 500, shape)
    got = run_norm(SOFTMAX, values, constants)
    for row, out in zip(values.tolist(), got, strict=True):
        terms = [exp_of(q - max(row), *constants) for q in row]
        inverse = np.float32(127) / np.float32(sum(terms))
        assert out.tolist() == [to_int8(term, inverse) for term in terms]
    true = np.exp((values - values.max(1, keepdims=True)) * scale)
    assert np.abs(got / 127 - true / true.sum(1, keepdims=True)).max() < 0.01 + scale


@pytest.mark.parametrize("activation", [SOFTMAX, LAYERNORM])
@pytest.mark.parametrize("shape", [(50, 100), (7, 16), (33, 120)])
def test_normalization_of_a_matrix_in_memory(activation, shape):
    """``tiled_norm_auto`` gives what the same activation at the end of a product gives, and takes time in both models."""
    values = np.random.default_rng(5).integers(-400, 400, shape)
    constants = norm.exp_constants(0.02) if activation == SOFTMAX else norm.Constants()
    heap = Heap()
    task = host.Norm(*shape, heap.put(values.astype(np.int32)), heap.put(np.zeros(shape, np.int8)), activation)
    program = host.norm(task, SMALL)
    Values(SMALL, heap.bytes).run([ConfigNorm(0, *constants), *program])
    assert (heap.get(task.c, shape, np.int8) == run_norm(activation, values, constants)).all()
    outcome = simulate(SMALL, program)
    assert outcome == compiled.run(SMALL, program)
    # three passes over every block of every row
    assert outcome.events["accumulator_read"] == 3 * shape[0] * -(-shape[1] // 16)


def test_the_exponential_as_the_public_rtl_has_it():
    """A copy of the GELU's polynomial stands there; only whoever asks for it gets it."""
    q, constants = np.array([-300, -20, -1, 0]), norm.exp_constants(0.01)
    assert norm.exp(q, constants, as_built=True).tolist() == [gelu_of(each, constants.qb, constants.qc) for each in q.tolist()]
    assert norm.exp(q, constants).tolist() == [exp_of(each, *constants) for each in q.tolist()]
    memory = np.zeros(4096, np.uint8)
    program = [ConfigNorm(0, *constants), ConfigLoad(2, 16, 16), Mvin(2, 64, ACCUMULATOR, 1, 4), ConfigStore(4, SOFTMAX)]
    memory[64:80] = q.astype(np.int32).view(np.uint8)
    outs = []
    for as_built in (False, True):
        passes = [Mvout(1024, ACCUMULATOR | command << NORM_SHIFT, 1, 4) for command in (5, 7, 0)]
        Values(Machine(), memory, exp_as_built=as_built).run([*program, *passes])
        outs.append(memory[1024:1028].view(np.int8).tolist())
    assert outs[0] != outs[1]


@settings(max_examples=15, deadline=None)
@given(shape=shapes, spread=st.integers(1, 300_000), seed=st.integers(0, 999))
def test_layernorm(shape, spread, seed):
    """Bit for bit I-BERT's; within half a unit of the true one where the deviation is more than a few units."""
    values = np.random.default_rng(seed).integers(-spread, spread, shape)
    got = run_norm(LAYERNORM, values, norm.Constants())
    for row, out in zip(values.tolist(), got, strict=True):
        mean = int(sum(row) / len(row))
        deviation = math.isqrt(sum((q - mean) ** 2 for q in row) // len(row)) or 1
        assert out.tolist() == [to_int8(q - mean, np.float32(1) / np.float32(deviation)) for q in row]
    if shape[1] > 1 and values.std(1).min() > 100:
        true = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
        assert np.abs(got - true).max() <= 0.55


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 16), cols=st.integers(1, 16), inner=st.integers(1, 16), steps=st.integers(1, 3), stationary=st.booleans(),
    bias=st.booleans(), turn=st.sampled_from(["", "a", "b"]), relu=st.booleans(), shift=st.integers(0, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_array_steps_that_the_host_issues(rows, cols, inner, steps, stationary, bias, turn, relu, shift, seed):
    """Preload and compute, weight- and output-stationary: sums of products of blocks, into accumulator and scratchpad."""
    rng, heap = np.random.default_rng(seed), Heap()
    turn = "" if stationary else turn
    a, b, d = small(rng, steps, rows, inner), small(rng, steps, inner, cols), small(rng, rows, cols)
    program = [ConfigExecute(output_stationary=stationary, a_transpose=turn == "a", b_transpose=turn == "b",
                             activation=RELU if relu else NONE, shift=shift if stationary else 0)]  # fmt: skip
    at = iter(range(0, 1 << 12, 16))

    def load(block, turned=False):
        block = block.T if turned else block
        row = next(at)
        program.extend([ConfigLoad(0, block.shape[1], 16), Mvin(0, heap.put(block), row, *block.shape)])
        return row, *block.shape

    bias_at = load(d) if bias else (GARBAGE, rows, cols)
    exact = sum(a[i].astype(np.int64) @ b[i].astype(np.int64) for i in range(steps))
    if stationary:
        program.append(Preload(*bias_at, next_row := next(at), rows, cols))
        exact = exact + bias * d
        for step in range(steps):
            program.append(Compute(*load(a[step]), step == 0, *load(b[step])))
        program += [ConfigExecute(), ConfigStore(cols), Mvout(heap.put(np.zeros((rows, cols), np.int8)), next_row, rows, cols)]
        wanted = np.rint(exact / 2.0**shift)
        wanted = np.clip(np.maximum(wanted, 0) if relu else wanted, -128, 127)
        kind = np.int8
    else:
        for step in range(steps):
            b_at, a_at = load(b[step], turn == "b"), load(a[step], turn == "a")
            program.append(Preload(b_at[0], inner, cols, ACCUMULATOR | (ACCUMULATE if step else 0), rows, cols))
            program.append(Compute(a_at[0], rows, inner, True, *(bias_at if step == 0 else (GARBAGE, rows, cols))))
        exact = exact + bias * d
        program += [ConfigStore(4 * cols), Mvout(heap.put(np.zeros((rows, cols), np.int32)), ACCUMULATOR | FULL, rows, cols)]
        wanted, kind = exact, np.int32
    Values(Machine(), heap.bytes).run(program)
    assert (heap.get(program[-1].dram, (rows, cols), kind) == wanted).all()


def test_outside_of_memory_is_named():
    task = host.Matmul(32, 32, 32, SIZE - 100, 64, 4096)
    with pytest.raises(InvalidInput, match=r"command \d+, Mvin.*bytes .* of a memory of 1048576"):
        Values(SMALL, Heap().bytes).run(host.matmul(task, SMALL))


def test_both_transposed_is_refused():
    task = host.Matmul(32, 32, 32, 64, 4096, 8192, a_transpose=True, b_transpose=True)
    with pytest.raises(InvalidInput, match="transposed"):
        Values(SMALL, Heap().bytes).run(host.matmul(task, SMALL))
