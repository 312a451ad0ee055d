"""Shared by the emitter tests: a context, a made-up instruction set in plain C, an interpreter of nests, a ctypes loader."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tilewright.plugins.emitters.native.nest import Affine, Assign, Call, For, If, Nest, Op, Ref, Value
from tilewright.plugins.emitters.native.semantics import execute, round_to
from tilewright.plugins.targets.cpu import Avx2
from tilewright.protocol.kernel import Instruction, InstructionLibrary, InstructionOperand, RegisterFile, Toolchain

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("clang") is None, reason="no C compiler (gcc, clang)")
needs_avx2 = pytest.mark.skipif(
    shutil.which("gcc") is None or not Path("/proc/cpuinfo").exists() or "avx2" not in Path("/proc/cpuinfo").read_text(),
    reason="no gcc, or this CPU lacks AVX2",
)


class Context:
    """The part of a plugin context that emitters use."""

    def __init__(self, **targets):
        self.targets = {"avx2": Avx2, **targets}

    def plugin(self, kind, name):
        assert kind == "targets"
        return self.targets[name]()


def _vector(name, access="in"):
    return InstructionOperand(name, "vector", "f32", 4, access)


def _memory(name, access="in", lanes=4):
    return InstructionOperand(name, "memory", "f32", lanes, access)


_MASK = InstructionOperand("mask", "mask", "i32", 4)
EACH = "for (int i = 0; i < 4; ++i) "

#: Four floats in a struct: an instruction set for any machine with a C compiler. It multiplies by a scalar in memory.
TOY = InstructionLibrary(
    name="toy",
    lanes={"f32": 4},
    registers=(RegisterFile("vector", 10, {"f32": "quad"}), RegisterFile("mask", 1, {"i32": "int"})),
    instructions=(
        Instruction("zero", (_vector("d", "out"),), "d[i] = 0", EACH + "{d}.x[i] = 0;"),
        Instruction("load", (_vector("d", "out"), _memory("s")), "d[i] = s[i]", EACH + "{d}.x[i] = ({s})[i];"),
        Instruction("store", (_memory("d", "out"), _vector("s")), "d[i] = s[i]", EACH + "({d})[i] = {s}.x[i];"),
        Instruction(
            "axpy",
            (_vector("y", "inout"), _memory("a", lanes=1), _vector("x")),
            "y[i] = fma(x[i], a[0], y[i])",
            EACH + "{y}.x[i] = fmaf(*({a}), {x}.x[i], {y}.x[i]);",
        ),
        Instruction("add", (_vector("y", "inout"), _vector("x")), "y[i] = x[i] + y[i]", EACH + "{y}.x[i] += {x}.x[i];"),
        Instruction(
            "first",
            (msgspec.structs.replace(_MASK, access="out"), InstructionOperand("n", "scalar")),
            "mask[i] = i < n",
            "{mask} = (int)({n});",
            requires=("0 <= n <= 4",),
        ),
        Instruction(
            "load_first",
            (_vector("d", "out"), _memory("s"), _MASK),
            "d[i] = s[i] if mask[i] else any",
            "for (int i = 0; i < {mask}; ++i) {d}.x[i] = ({s})[i];",
        ),
        Instruction(
            "store_first",
            (_memory("d", "inout"), _vector("s"), _MASK),
            "d[i] = s[i] if mask[i] else d[i]",
            "for (int i = 0; i < {mask}; ++i) ({d})[i] = {s}.x[i];",
        ),
    ),
    headers=("math.h",),
    preamble="typedef struct { float x[4]; } quad;",
    toolchains=(
        Toolchain("any", ("gcc", "clang", "cc"), ("-O1", "-ffp-contract=off"), ("x86_64", "AMD64", "aarch64", "arm64", "riscv64")),
    ),
    caches=Avx2().instructions().caches,
)


def with_template(library, name, template, **changes):
    """The library with one instruction's C template exchanged."""
    instructions = tuple(
        msgspec.structs.replace(each, template=template, **changes) if each.name == name else each for each in library.instructions
    )
    return msgspec.structs.replace(library, instructions=instructions)


def interpret(nest: Nest, memory: dict[str, np.ndarray], arguments: dict[str, int]) -> None:
    """Execute a nest on arrays of Fractions, instructions by their semantics; `memory` is written in place.

    Memory is given as matrices. The last two indices of B, C and a panel (vector, lane) make up a column, as in C.
    """
    state = dict(memory)
    for name, buffer in nest.buffers.items():
        if name not in state:
            state[name] = np.full([int(n) for n in buffer.shape], Fraction(0), dtype=object)
    _run(nest.body, state, {}, arguments)


def _at(index: Affine, env):
    return index.constant + sum(factor * env[name] for name, factor in index.terms)


def _place(ref, state, env):
    """Array and index of one element."""
    array, index = state[ref.buffer], [_at(each, env) for each in ref.index]
    if ref.buffer in ("B", "C", "packed_b") and len(index) == 3:
        index = [index[0], index[1] * env["lanes"] + index[2]]
    elif ref.buffer == "A":
        index = index[:2]
    return array, tuple(index)


def _value(expr, state, env):
    if isinstance(expr, Ref):
        array, index = _place(expr, state, env)
        return array[index]
    if isinstance(expr, Value):
        return _at(expr.index, env)
    assert isinstance(expr, Op)
    if expr.name == "any":
        return Fraction(77)
    if expr.name == "select":
        return _value(expr.args[1 if _value(expr.args[0], state, env) else 2], state, env)
    args = [_value(arg, state, env) for arg in expr.args]
    if expr.name == "less":
        return int(args[0] < args[1])
    return round_to(args[0] * args[1] + args[2] if expr.name == "fma" else args[0] + args[1], "f32")


def _run(body, state, env, arguments):
    for statement in body:
        if isinstance(statement, For):
            for trip in range(arguments[statement.extent] if isinstance(statement.extent, str) else statement.extent):
                _run(statement.body, state, {**env, statement.variable: trip}, arguments)
        elif isinstance(statement, If):
            _run(statement.then if arguments[statement.condition] else statement.otherwise, state, env, arguments)
        elif isinstance(statement, Assign):
            array, place = _place(statement.target, state, {**arguments, **env})
            array[place] = _value(statement.value, state, {**arguments, **env})
        else:
            _call(statement, state, {**arguments, **env})


def _call(call: Call, state, env):
    if call.instruction.semantics == "pass":
        return
    inputs, places = {}, {}
    for operand in call.instruction.operands:
        bound = dict(call.operands)[operand.name]
        if isinstance(bound, Affine):
            inputs[operand.name] = _at(bound, env)
            continue
        array, (*outer, last) = _place(bound, state, env)
        row = array[tuple(outer)]
        places[operand.name] = (row, last)
        inputs[operand.name] = [row[last + lane] if last + lane < len(row) else Fraction(0) for lane in range(operand.lanes)]
    written = next(operand for operand in call.instruction.operands if operand.access != "in")
    row, last = places[written.name]
    for lane, value in enumerate(execute(call.instruction, inputs)):
        if last + lane < len(row):
            row[last + lane] = value if isinstance(value, int | Fraction) else Fraction(55)


def load(kernel, folder):
    """Compile a kernel into a shared library and return its functions."""
    (folder / f"{kernel.name}.c").write_text(kernel.source)
    (folder / f"{kernel.name}.h").write_text(kernel.header)
    shared = folder / f"{kernel.name}.so"
    command = ["gcc", "-O2", "-mavx2", "-mfma", "-Wall", "-Wextra", "-Werror", "-std=c11", "-shared", "-fPIC"]
    subprocess.run([*command, str(folder / f"{kernel.name}.c"), "-o", str(shared)], check=True, timeout=60)
    return ctypes.CDLL(str(shared))


def call(library, name, *arrays):
    """Call a function of float pointers."""
    getattr(library, name)(*(array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for array in arrays))
