"""The emitter: conformance, its C against its program, all contractions of the zoo, and simulated cycles of what it emits."""

import shutil
import subprocess

import pytest

from tilewright.plugins.simulators.gemmini import isa
from tilewright.plugins.simulators.gemmini.machine import Machine
from tilewright.plugins.simulators.gemmini.timing import simulate
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, EmitRequest, SimRequest
from tilewright.protocol.workload import batched_matmul, conv2d, depthwise, elementwise, matmul
from tilewright.testing import samples
from tilewright.testing.emitters import EmitterConformance

OPERATORS = {
    "tails": matmul(p=100, c=70, k=130),
    "vector": matmul(p=1, c=768, k=768),
    "heads": batched_matmul(g=3, p=50, c=64, k=50),
    "grouped queries": batched_matmul(g=2, p=20, c=64, k=30, h=4),
    "conv": conv2d(r=3, s=3, p=28, q=28, c=40, k=50, padding=(1, 1)),
    "downsample": conv2d(r=1, s=1, p=14, q=14, c=64, k=32, stride=(2, 2), extent=(28, 28)),
    "first layer": conv2d(r=7, s=7, p=112, q=112, c=3, k=64, stride=(2, 2), padding=(3, 3), extent=(224, 224)),
    "dilated": conv2d(r=3, s=3, p=20, q=16, c=24, k=20, dilation=(2, 2), padding=(2, 2)),
    "grouped": conv2d(r=3, s=3, p=10, q=10, c=8, k=8, g=4, padding=(1, 1)),
    "depthwise": depthwise(r=3, s=3, p=14, q=14, g=6, padding=(1, 1)),
}


class TestConformance(EmitterConformance):
    name = "gemmini"


class TestConformanceOnConvolutions(EmitterConformance):
    name = "gemmini"
    operator = "conv"


def emit(operator, schedule=None, **options):
    ctx = HostContext("emitters", "gemmini", Budget(), granted=("targets:gemmini",))
    return registry.load("emitters", "gemmini").emit(EmitRequest(operator, "gemmini", schedule, options), ctx)


@pytest.mark.parametrize("name", OPERATORS)
def test_c_issues_the_program(name, tmp_path):
    """The C, built for this machine, prints the very instructions of the program (of every repetition)."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    kernel = emit(OPERATORS[name])
    for suffix, text in ((".c", kernel.source), (".h", kernel.header), ("_test.c", kernel.test)):
        (tmp_path / (kernel.name + suffix)).write_text(text)
    files = [f"{kernel.name}.c", f"{kernel.name}_test.c"]
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-DTW_ROCC_HOST", *files, "-o", "run"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=True).stdout
    issued = [tuple(map(int, line.split())) for line in printed.splitlines()]
    program = list(isa.RECORD.iter_unpack(kernel.program))
    assert issued[: len(program)] == program
    assert len(issued) % len(program) == 0


def test_emitted_program_takes_the_simulated_cycles():
    """From a schedule to code to cycles: the simulator's answer is that of the emitted stream."""
    architecture = registry.load("targets", "gemmini").architecture()
    schedule = samples.schedule(OPERATORS["tails"], architecture)
    kernel = emit(OPERATORS["tails"], schedule)
    ctx = HostContext("simulators", "gemmini", Budget())
    (cost,) = registry.load("simulators", "gemmini").run(SimRequest((schedule,), architecture), ctx).costs
    assert simulate(Machine(), isa.decode(kernel.program)).cycles == cost.cycles
    assert kernel.program != emit(OPERATORS["tails"], schedule, tiles="auto").program


def test_every_contraction_of_the_zoo_has_a_kernel():
    zoo = registry.load("frontends", "zoo")
    for model in ("bert-base", "resnet18", "mobilenet_v2"):
        if model not in zoo.models():
            continue
        for task in zoo.load(model, {}).tasks:
            if task.operator.is_contraction:
                assert emit(task.operator).verification.status == "verified"


def test_what_it_cannot_emit_is_named():
    with pytest.raises(InvalidInput, match="softmax"):
        emit(elementwise("softmax", {"P": 4, "C": 4}, reduced=("C",)))
    with pytest.raises(InvalidInput, match="kernel 1 x 3"):
        emit(conv2d(r=1, s=3, p=4, q=4, c=4, k=4))
    with pytest.raises(InvalidInput, match=r"options\.tiles: 'best'"):
        emit(samples.OPERATORS["matmul"], tiles="best")
