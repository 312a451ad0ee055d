"""CoSA against the optimum of its own published program, and on everything else we map."""

from __future__ import annotations

from typing import Any

import pytest

from tilewright import loopnest as ln
from tilewright.plugins.mappers.cosa.formulation import formulate
from tilewright.plugins.mappers.cosa.program import EVEN, Program, Weights
from tilewright.plugins.mappers.cosa.solvers import solver
from tilewright.plugins.validations.cosa import layer, load
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, Candidate, MapRequest, Options
from tilewright.protocol.workload import Operator, batched_matmul, conv2d, depthwise, matmul

RECORDS = load(None)
SIMBA = registry.load("targets", "simba").architecture()


def search(operator: Operator, target: str = "gemmini", options: Options | None = None) -> tuple[list[Candidate], list[str]]:
    plugin = registry.load("targets", target)
    said: list[str] = []
    ctx = HostContext("mappers", "cosa", Budget(evaluations=2000), progress=lambda message, figures: said.append(message))
    request = MapRequest(operator, plugin.architecture(), plugin.constraints(), options=options or {})
    return list(registry.load("mappers", "cosa").search(request, ctx)), said


def name_of(record: dict[str, Any]) -> str:
    return f"{record['network']}{record['layer']}"


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_objective_is_the_optimum_of_the_released_program(record: dict[str, Any]) -> None:
    """All 62 distinct shapes; the recorded optima come from Gurobi on the original, quadratic program."""
    found = Program(formulate(ln.Problem(layer(record), SIMBA))).solve(solver("highs"))
    assert found is not None
    assert found.proven
    assert found.objective == pytest.approx(record["objective"], abs=1e-6)


@pytest.mark.parametrize("record", RECORDS[::7], ids=name_of)
def test_cbc_finds_the_same_optimum(record: dict[str, Any]) -> None:
    found = Program(formulate(ln.Problem(layer(record), SIMBA))).solve(solver("cbc"))
    assert found is not None
    assert found.objective == pytest.approx(record["objective"], abs=1e-6)


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_every_shape_gets_a_valid_mapping_and_the_5x5_a_repaired_one(record: dict[str, Any]) -> None:
    """Timeloop rejects CoSA's mapping of AlexNet's 5x5 layer: its tile takes 72448 words of 65536."""
    found, said = search(layer(record), "simba")
    assert len(found) == 1
    problem = ln.Problem(layer(record), SIMBA)
    assert ln.cost(problem, found[0].mapping).cycles > 0
    if record["timeloop"]["valid"]:
        assert found[0].claim.kind == "proxy optimum"
    else:
        assert name_of(record) == "alexnet_outputs_input.4"
        assert found[0].claim.kind == "best found"
        assert any("exceeds GlobalBuffer by 6912 words" in message for message in said)


OTHERS = {
    "projection": matmul(p=128, c=768, k=768),
    "scores": batched_matmul(g=12, p=128, c=64, k=128),
    "shared keys": batched_matmul(g=8, h=4, p=1, c=128, k=513),
    "vector": matmul(p=1, c=2048, k=1000),
    "prime": matmul(p=197, c=131, k=61),
    "depthwise": depthwise(r=3, s=3, p=112, q=112, g=32, padding=(1, 1)),
    "strided depthwise": depthwise(r=3, s=3, p=56, q=56, g=96, stride=(2, 2), padding=(1, 1)),
    "first": conv2d(r=7, s=7, p=112, q=112, c=3, k=64, stride=(2, 2), padding=(3, 3)),
    "large taps": conv2d(r=11, s=11, p=55, q=55, c=3, k=64, stride=(4, 4)),
    "dilated": conv2d(r=3, s=3, p=28, q=28, c=64, k=64, dilation=(2, 2)),
    "grouped": conv2d(r=3, s=3, p=14, q=14, c=8, k=8, g=32, padding=(1, 1)),
    "one": matmul(p=1, c=1, k=1),
}


@pytest.mark.parametrize("target", ["gemmini", "simba", "tpu_like", "eyeriss"])
@pytest.mark.parametrize("operator", OTHERS.values(), ids=OTHERS)
def test_any_operator_on_any_target(operator: Operator, target: str) -> None:
    found, _ = search(operator, target)
    plugin = registry.load("targets", target)
    assert len(found) == 1
    assert ln.cost(ln.Problem(operator, plugin.architecture(), plugin.constraints()), found[0].mapping).cycles > 0


@pytest.mark.parametrize("constants", ["release", "paper"])
def test_same_request_same_mapping(constants: str) -> None:
    operator = OTHERS["dilated"]
    assert search(operator, options={"constants": constants})[0] == search(operator, options={"constants": constants})[0]


def test_shares_of_the_global_buffer_change_the_optimum() -> None:
    """With half of the global buffer for inputs, recorded optima of the 1x1 layers are lower or equal."""
    record = next(r for r in RECORDS if r["dims"]["R"] == 1 and r["dims"]["P"] == 56)
    problem = ln.Problem(layer(record), SIMBA)
    objective = {split: Program(formulate(problem, split=split)).solve(solver("highs")) for split in (0.25, 0.9999)}
    assert objective[0.25] is not None and objective[0.9999] is not None
    assert objective[0.25].objective == pytest.approx(record["objective"], abs=1e-6)
    assert objective[0.9999].objective > objective[0.25].objective


def optimum(weights: Weights, *, balance: bool = False, name: str = "highs") -> float:
    problem = ln.Problem(OTHERS["first"], SIMBA)
    found = Program(formulate(problem), weights, balance=balance).solve(solver(name))
    assert found is not None and found.proven
    return found.objective


def test_the_balance_counts_the_longer_of_work_and_traffic() -> None:
    """Without the one it is the other, and a hundredth of the sum; in between it lies between half of the sum and the sum."""
    assert optimum(Weights(0.1, 0, 1), balance=True) == pytest.approx(optimum(Weights(0.1, 0, 1.01)), abs=1e-6)
    assert optimum(Weights(0.1, 1, 0), balance=True) == pytest.approx(optimum(Weights(0.1, 1.01, 0)), abs=1e-6)
    both = optimum(EVEN, balance=True)
    assert optimum(Weights(0.1, 0.51, 0.51)) - 1e-6 <= both <= optimum(Weights(0.1, 1.01, 1.01)) + 1e-6
    assert optimum(EVEN, balance=True, name="cbc") == pytest.approx(both, abs=1e-6)


def test_the_balance_is_claimed_by_its_name() -> None:
    found, _ = search(OTHERS["projection"], options={"objective": "balance"})
    assert found[0].claim.mapspace == "cosa-release-balance"
    other, _ = search(OTHERS["projection"], options={"objective": "balance", "weights": "0.1,10,1"})
    assert other[0].claim.kind == "proxy optimum"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constants": "papers"}, "options.constants: 'papers', expected one of release, paper"),
        ({"split": 1.5}, "options.split: 1.5, expected a share between 0 and 1"),
        ({"objective": "mean"}, "options.objective: 'mean', expected sum or balance"),
        ({"weights": "1,2"}, "options.weights: '1,2', expected three numbers"),
        ({"weights": "1,-2,3"}, "expected three numbers of at least 0"),
        ({"weights": "a,b,c"}, "expected three numbers"),
        ({"solver": "gurobi"}, "options.solver: 'gurobi', expected one of auto, highs, cbc"),
    ],
)
def test_wrong_options(options: Options, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        search(OTHERS["vector"], options=options)


def test_the_solver_writes_nothing_to_our_output(capfd: pytest.CaptureFixture[str]) -> None:
    search(OTHERS["vector"])
    assert capfd.readouterr().out == ""


def test_variables_are_a_tenth_of_the_published_programs() -> None:
    """651 to 1944 variables there."""
    sizes = [len(Program(formulate(ln.Problem(layer(record), SIMBA))).lp.variables()) for record in RECORDS]
    assert max(sizes) <= 110
