"""The engine in C against the model in Python: equal in every figure, span by span; and what happens without a compiler."""

import shutil

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.plugins.simulators.gemmini import compiled, host
from tilewright.plugins.simulators.gemmini.commands import (
    ACCUMULATE,
    ACCUMULATOR,
    GARBAGE,
    Compute,
    ConfigExecute,
    ConfigLoad,
    ConfigStore,
    Mvin,
    Mvout,
    Preload,
)
from tilewright.plugins.simulators.gemmini.loop_matmul import LAYERNORM, NONE, SOFTMAX
from tilewright.plugins.simulators.gemmini.machine import LEAN, Machine, Memory
from tilewright.plugins.simulators.gemmini.tiling import ConvShape
from tilewright.plugins.simulators.gemmini.timing import simulate
from tilewright.protocol.errors import InvalidInput

pytestmark = pytest.mark.skipif(compiled.engine() is None, reason="no C compiler")

machines = st.builds(
    lambda lean, fields, memory: msgspec.structs.replace(LEAN if lean else Machine(), memory=Memory(**memory), **fields),
    st.booleans(),
    st.fixed_dictionaries(
        {
            "in_flight": st.sampled_from([1, 4, 16, 64]),
            "load_entries": st.sampled_from([2, 8]),
            "execute_entries": st.sampled_from([3, 16]),
            "store_entries": st.sampled_from([1, 4]),
            "single_ported": st.booleans(),
            "scratchpad_bytes": st.sampled_from([32 << 10, 256 << 10]),
            "accumulator_bytes": st.sampled_from([16 << 10, 64 << 10]),
            "loops": st.sampled_from([1, 2]),
            "command_interval": st.sampled_from([1, 2, 30]),
        }
    ),
    st.fixed_dictionaries(
        {
            "latency": st.sampled_from([1, 40, 333]),
            "cache_bytes": st.sampled_from([0, 4096, 65536]),
            "miss_latency": st.sampled_from([0, 60]),
            "dram_bytes_per_cycle": st.sampled_from([3.7, 16.0]),
        }
    ),
)


def agree(machine, program, half):
    slow = simulate(machine, program, half, spans=True)
    fast = compiled.run(machine, program, half, spans=True)
    assert fast == slow
    assert compiled.run(machine, program, half).cycles == slow.cycles
    for causes in fast.attribution.values():
        assert sum(causes.values()) == fast.cycles
        assert min(causes.values()) >= 0


@settings(max_examples=25, deadline=None)
@given(
    machine=machines, m=st.integers(1, 90), n=st.integers(1, 90), k=st.integers(1, 200), a=st.integers(1 << 12, 1 << 13),
    bias=st.booleans(), turn=st.sampled_from(["", "a", "b"]), activation=st.sampled_from([NONE, NONE, LAYERNORM, SOFTMAX]),
    half=st.integers(0, 1),
)  # fmt: skip
def test_matrix_products(machine, m, n, k, a, bias, turn, activation, half):
    task = host.Matmul(
        m, n, k, a, 1 << 20, 1 << 24, d=1 << 25 if bias else 0, a_transpose=turn == "a", b_transpose=turn == "b", activation=activation
    )
    agree(machine, host.matmul(task, machine), half)


@settings(max_examples=20, deadline=None)
@given(
    machine=machines, rows=st.integers(4, 18), cols=st.integers(4, 30), cin=st.sampled_from([1, 3, 16, 40]), cout=st.integers(1, 40),
    kernel=st.sampled_from([1, 3]), stride=st.integers(1, 2), pool=st.booleans(), bias=st.booleans(), half=st.integers(0, 1),
)  # fmt: skip
def test_convolutions(machine, rows, cols, cin, cout, kernel, stride, pool, bias, half):
    pad = kernel // 2
    out = [(size + 2 * pad - kernel) // stride + 1 for size in (rows, cols)]
    pooled = (2, 2, 0) if pool and min(out) >= 2 else (0, 0, 0)
    shape = ConvShape(1, rows, cols, cin, cout, *out, kernel, stride, pad, 1, *pooled)
    agree(machine, host.conv(host.Conv(shape, 1 << 16, 1 << 20, 1 << 24, 1 << 25 if bias else 0), machine), half)


def test_additions_and_commands_of_the_host():
    agree(Machine(), host.add(host.Add(100, 300, 64, 1 << 20, 1 << 21, a_scale=0.5), Machine()), 0)
    program = [
        ConfigExecute(), ConfigStore(64), ConfigLoad(0, 64, 16), ConfigLoad(2, 0, 16), Mvin(0, 4096, 0, 16, 64), Mvin(0, 0, 64, 16, 16),
        Mvin(2, 8192, ACCUMULATOR, 16, 16), Preload(0, 16, 16, ACCUMULATOR | ACCUMULATE, 16, 16), Compute(64, 16, 16, True),
        Preload(GARBAGE, 16, 16, ACCUMULATOR | 16, 16, 16), Compute(16, 16, 16, False), Mvout(1 << 16, ACCUMULATOR, 16, 32),
    ]  # fmt: skip
    agree(Machine(), program, 0)


@pytest.mark.parametrize("stuck", [Preload(0, 16, 16, GARBAGE, 16, 16), Preload(0, 16, 16, ACCUMULATOR, 16, 16)])
def test_trouble_is_told_in_the_same_words(stuck):
    program = [ConfigExecute(), Mvin(0, 4096, 0, 16, 16), stuck]
    with pytest.raises(InvalidInput) as slow:
        simulate(Machine(), program)
    with pytest.raises(InvalidInput) as fast:
        compiled.run(Machine(), program)
    assert str(fast.value) == str(slow.value)
    assert "command 2, Preload" in str(fast.value)


def test_without_a_compiler_python_does_it(tmp_path, monkeypatch):
    program = host.matmul(host.Matmul(20, 30, 40, 4096, 8192, 1 << 14), Machine())
    expected = compiled.run(Machine(), program)
    monkeypatch.setattr(compiled.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "COMPILERS", ("no-such-compiler",))
    compiled.engine.cache_clear()
    try:
        assert compiled.engine() is None
        assert compiled.run(Machine(), program) == expected
    finally:
        compiled.engine.cache_clear()


def test_the_engine_is_compiled_once_into_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    compiled.engine.cache_clear()
    try:
        assert compiled.engine() is not None
        (library,) = (tmp_path / "cache").iterdir()
        written = library.stat().st_mtime_ns
        compiled.engine.cache_clear()
        assert compiled.engine() is not None
        assert library.stat().st_mtime_ns == written
        # a compiler that fails, and no library yet
        shutil.rmtree(tmp_path / "cache")
        monkeypatch.setattr(compiled, "COMPILERS", ("false",))
        compiled.engine.cache_clear()
        assert compiled.engine() is None
    finally:
        compiled.engine.cache_clear()
