"""From options to requests: names are looked up, files are read on the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.plugin import Budget
from tilewright.protocol.subjects import STAGES
from tilewright.services.cli import request
from tilewright.services.cli.options import RunOptions


def build(local: bool = True, **said: Any) -> RunRequest:
    options = RunOptions(**{"model": "toy-net", "target": "toy", "frontend": "toy", "mapper": "toy", **said})
    return request.build(options, STAGES, local=local)


def test_everything_said_is_in_the_request() -> None:
    built = build(
        seq=16,
        option=["layers=2"],
        parameter=["buffer_kib=8"],
        objective="energy",
        mapper_option=["seconds=0.5"],
        evaluations=10,
        seconds="3s",
        gap="1%",
        codesigner="toy",
        codesigner_option=["depth=1"],
        design_evaluations=7,
        limit=["buffer_kib=4", "latency=1e6"],
        emitter="native",
        emitter_option=["tile=a"],
        simulator_option=["semantics=walk"],
        seed=5,
        no_cache=True,
    )
    assert built == RunRequest(
        model="toy-net",
        target="toy",
        frontend="toy",
        frontend_options={"layers": 2, "seq": 16},
        target_parameters={"buffer_kib": 8},
        stages=STAGES,
        objective="energy",
        mapper="toy",
        mapper_options={"seconds": 0.5},
        map_budget=Budget(evaluations=10, seconds=3.0, gap=0.01),
        codesigner="toy",
        codesigner_options={"depth": 1},
        codesign_budget=Budget(evaluations=7),
        limits={"buffer_kib": 4.0, "cycles": 1e6},
        emitter="native",
        emitter_options={"tile": "a"},
        simulator_options={"semantics": "walk"},
        seed=5,
        use_cache=False,
    )


def test_what_is_not_said_keeps_the_defaults_of_the_protocol() -> None:
    assert build(mapper="portfolio") == RunRequest("toy-net", "toy", frontend="toy")


def test_a_model_without_a_frontend_is_looked_for_in_the_zoo() -> None:
    assert build(frontend="", model="bert-base").frontend == "zoo"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"model": "toy-nett"}, "model 'toy-nett' is unknown to the frontend toy; did you mean 'toy-net'?"),
        ({"target": "toi"}, "target 'toi' is not installed; did you mean 'toy'?"),
        ({"mapper": "cosy"}, "mapper 'cosy' is not installed; did you mean 'cosa'?"),
        ({"codesigner": "pareta"}, "codesigner 'pareta' is not installed; did you mean 'pareto'?"),
        ({"emitter": "nativ"}, "emitter 'nativ' is not installed; did you mean 'native'?"),
        ({"simulator": "analytic"}, "simulator 'analytic' is not installed; did you mean 'analytical'?"),
        ({"frontend": "tou"}, "frontend 'tou' is not installed; did you mean 'toy'?"),
        ({"option": ["layer=3"]}, "option 'layer' is unknown to the frontend toy; did you mean 'layers'?"),
        ({"batch": 3}, "option 'batch' is unknown to the frontend toy"),
        ({"mapper_option": ["second=1"]}, "options.second: mapper 'toy' has no such option; did you mean 'seconds'?"),
        ({"emitter": "native", "emitter_option": ["dtyp=a"]}, "options.dtyp: emitter 'native' has no such option; did you mean 'dtype'?"),
        ({"simulator_option": ["semantic=walk"]}, "options.semantic: simulator 'analytical' has no such option; did you mean 'semantics'?"),
        ({"seq": 3, "option": ["seq=4"]}, "--seq 3 and --option seq=4: expected one of them"),
        ({"target": "nowhere.yaml"}, "file 'nowhere.yaml' does not exist"),
        ({"target": "x.yaml", "parameter": ["a=1"]}, "x.yaml has no design space"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(said: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        build(**said)
    assert text in str(refused.value)
    assert refused.value.exit_code == 2


def test_only_plugins_of_the_stages_are_looked_up() -> None:
    options = RunOptions(model="toy-net", target="toy", frontend="toy", mapper="toy", simulator="nothing")
    assert request.build(options, ("map",), local=True).simulator == "nothing"


def test_somebody_elses_services_may_have_other_plugins() -> None:
    built = build(local=False, frontend="", model="their-model", target="their-target", mapper="their-mapper")
    assert (built.model, built.frontend, built.target, built.mapper) == ("their-model", "zoo", "their-target", "their-mapper")


class ReadsFiles:
    """A frontend without names: what it reads exists on the client only."""

    options: ClassVar[dict[str, str]] = {"layers": "how many"}

    def models(self) -> tuple[str, ...]:
        return ()

    def load(self, source: str, options: dict[str, Any]) -> Any:
        from tilewright.protocol.workload import Workload, matmul

        return Workload.build(Path(source).read_text(), [("only", matmul(p=1, c=2, k=3))])


def test_files_are_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request.registry, "load", lambda kind, name: ReadsFiles())
    path = tmp_path / "model.yaml"
    with pytest.raises(InvalidInput, match=r"model file .*model\.yaml' does not exist"):
        build(frontend="", model=str(path))
    path.write_text("my model")
    built = build(frontend="", model=str(path))
    assert built.frontend == "yaml"
    assert built.workload is not None and built.workload.name == "my model"


def test_an_architecture_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "arch.toy"
    path.write_text("{}")
    built = build(target=str(path), format="toy")
    assert built.architecture is not None
    assert built.target == built.architecture.name == "toy"
