"""Settings, conventions, generations, tiled traffic and described processors, against figures worked out by hand."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import Profile, ProfileJob
from tilewright.protocol.passes import Loader, generation
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Analysis, Counted, Given, Machine, Memory, Peak, Point, by_class
from tilewright.protocol.workload import Operator, Workload, batched_matmul, conv2d, elementwise, matmul
from tilewright.services import profiler
from tilewright.services.profiler.analysis import part_of
from tilewright.services.profiler.generating import trapezoids
from tilewright.services.profiler.machines import predict
from tilewright.services.profiler.tiling import tiled_bytes
from tilewright.services.runtime.host import Host
from tilewright.testing import samples


def analyse(host: Host, analysis: Analysis, model: str = "bert-base", **options: int | bool) -> Profile:
    return profiler.perform(ProfileJob(model, "zoo", "gemmini", options=options, analysis=analysis), host)


def total(point: Point) -> tuple[float, float]:
    flops, moved = zip(*by_class(point.rows).values(), strict=True)
    return math.fsum(flops), math.fsum(moved)


def test_a_sweep_is_one_point_per_combination(host: Host) -> None:
    found = analyse(host, Analysis(sweep={"seq": (64, 128), "batch": (1, 2)}), layers=2)
    assert [point.setting for point in found.points] == [{"seq": s, "batch": b} for s in (64, 128) for b in (1, 2)]
    assert total(found.points[0])[0] == sum(each.count * each.flops for each in found.operators)
    zoo = host.plugin("frontends", "zoo")
    last = zoo.load("bert-base", {"seq": 128, "batch": 2, "layers": 2})
    assert total(found.points[-1])[0] == sum(task.count * task.operator.flops for task in last.tasks)


def test_the_survey_ignores_how_many_positions_there_are(host: Host) -> None:
    found = analyse(host, Analysis(convention="survey", sweep={"seq": (512, 4096)}))
    flops, moved = total(found.points[1])
    assert (round(flops / 1e9, 2), round(moved / 1e9, 2)) == (1323.66, 11.22)
    assert set(by_class(found.points[1].rows)) == {"MHA projections", "act-to-act", "FFN", "other"}
    with pytest.raises(InvalidInput, match="seq: 4096, expected an integer from 1 to 512"):
        analyse(host, Analysis(sweep={"seq": (512, 4096)}))


@pytest.mark.parametrize("prompt", [0, 7])
def test_a_generation_is_the_sum_of_its_steps(host: Host, prompt: int) -> None:
    tokens = 40
    options = {"seq": prompt} if prompt else {}
    (point,) = analyse(host, Analysis(generate=tokens), "gpt2", layers=1, **options).points
    zoo = host.plugin("frontends", "zoo")
    steps = [zoo.load("gpt2", {"layers": 1, "decode": True, "ctx": ctx}) for ctx in range(prompt + 1, prompt + tokens + (not prompt))]
    passes = [*steps, zoo.load("gpt2", {"layers": 1, "seq": prompt})] if prompt else steps
    tasks = [task for workload in passes for task in workload.tasks]
    assert (point.phase, point.tokens) == ("generation", tokens)
    assert total(point) == (
        sum(task.count * task.operator.flops for task in tasks),
        sum(task.count * (task.operator.read_bytes + task.operator.write_bytes) for task in tasks),
    )


def test_given_workloads_are_points(host: Host) -> None:
    first, second = (Workload.build("own", [("a", matmul(p=p, c=8, k=8))]) for p in (1, 2))
    job = ProfileJob("own", "onnx", "gemmini", workload=first, analysis=Analysis(given=(Given({"p": 1}, first), Given({"p": 2}, second))))
    assert profiler.plugins(job, host) == (("targets", "gemmini"), ("conventions", "standard"))
    assert [total(point)[0] for point in profiler.perform(job, host).points] == [128, 256]


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        (Analysis(convention="surv"), "convention 'surv' is not installed; did you mean 'survey'?"),
        (Analysis(convention="survey", convention_options={"fuse": True}), "options.fuse: convention 'survey' has no such option"),
        (Analysis(sweep={"seqs": (1, 2)}), "options.seqs: frontend 'zoo' has no such option; did you mean 'seq'?"),
        (Analysis(sweep={"seq": tuple(range(1, 301))}), "sweep: 300 combinations, expected 1 to 256"),
        (Analysis(sweep={name: tuple(range(1 << 10)) for name in "abcdefgh"}), f"sweep: {1 << 80} combinations, expected 1 to 256"),
        (Analysis(sweep={"seq": ()}), "sweep: 0 combinations, expected 1 to 256"),
        (Analysis(generate=3), "option 'decode': bert-base has no such option"),
    ],
)
def test_bad_input(host: Host, analysis: Analysis, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        analyse(host, analysis)
    assert said in str(caught.value)


def test_passes_that_a_client_sends_are_a_generation_too(host: Host) -> None:
    """The same figures as where the service loads them; a pass that is missing is named."""
    zoo = host.plugin("frontends", "zoo")
    analysis = Analysis(generate=40)
    options: Options = {"seq": 7, "layers": 2}
    (known,) = analyse(host, analysis, "gpt2", **options).points

    def passes(*contexts: int) -> tuple[Given, ...]:
        steps = [Given({"ctx": ctx}, zoo.load("gpt2", {"layers": 2, "decode": True, "ctx": ctx})) for ctx in contexts]
        return (Given({"seq": 7}, zoo.load("gpt2", options)), *steps)

    given = passes(8, (8 + 46) // 2, 46)
    job = ProfileJob("own", "onnx", "gemmini", options=options, workload=given[0].workload)
    (found,) = profiler.perform(msgspec.structs.replace(job, analysis=msgspec.structs.replace(analysis, given=given)), host).points
    assert found == known
    with pytest.raises(InvalidInput, match=r"no workload of own at .*'ctx': 46.*, expected one for every pass"):
        profiler.perform(msgspec.structs.replace(job, analysis=msgspec.structs.replace(analysis, given=passes(8, 27))), host)


@pytest.mark.parametrize("prompt", [0, 7])
def test_the_time_of_a_generation_is_that_of_its_passes(host: Host, prompt: int) -> None:
    """On the target and on a machine, operator by operator as well as in total, against every pass on its own."""
    analysis = Analysis(machines=(processor(),))
    options: Options = {"seq": prompt} if prompt else {}
    (found,) = analyse(host, msgspec.structs.replace(analysis, generate=40), "gpt2", layers=1, **options).points
    contexts = range(prompt + 1, prompt + 40 + (not prompt))
    passes: list[Options] = [{"decode": True, "ctx": context} for context in contexts] + ([options] if prompt else [])
    seconds = {"gemmini": 0.0, "p": 0.0}
    for each in passes:
        (point,) = analyse(host, analysis, "gpt2", layers=1, **each).points
        for row in point.rows:
            for prediction in row.predictions:
                seconds[prediction.machine] += row.count * prediction.seconds
    for at, machine in enumerate(seconds):
        assert math.fsum(row.count * row.predictions[at].seconds for row in found.rows) == pytest.approx(seconds[machine], rel=1e-3)
        assert math.fsum(each.count * each.predictions[at].seconds for each in found.layers) == pytest.approx(seconds[machine], rel=1e-3)
        assert {row.predictions[at].machine for row in found.rows} == {machine}


@pytest.mark.parametrize("contexts", [(5,), (5, 6), (5, 9, 40), ()])
def test_trapezoids_add_up_what_is_linear_in_between(contexts: tuple[int, ...]) -> None:
    weights = trapezoids(contexts)
    steps = range(contexts[0], contexts[-1] + 1) if contexts else ()
    assert sum(weight * (3 * context + 2) for weight, context in zip(weights, contexts, strict=True)) == sum(3 * each + 2 for each in steps)


def test_a_generation_of_one_token_is_its_prompt(host: Host) -> None:
    (point,) = analyse(host, Analysis(generate=1), "gpt2", layers=1, seq=9).points
    (alone,) = analyse(host, Analysis(), "gpt2", layers=1, seq=9).points
    assert total(point) == total(alone) and {row.kind for row in point.rows} == {row.kind for row in alone.rows}


def test_what_only_the_prompt_has_is_named_so() -> None:
    """A prompt of a model whose steps have other nodes: nothing is added to what it is not."""
    step, opening = (Workload.build(name, [(name, matmul(p=1, c=8, k=8))]) for name in ("a", "b"))

    class Odd:
        def load(self, source: str, options: Options) -> Workload:
            return step if "ctx" in options else opening

    def count(workload: Workload) -> list[Counted]:
        return [Counted(node.id, "linear", 128.0, 72.0, 8.0) for node in workload.nodes]

    last, items = generation(Loader(Odd(), ""), count, {"seq": 3}, 5)
    assert last is step
    assert {item.node: item.flops for item in items} == {"a": 4 * 128.0, "prompt: b": 128.0}


def test_layers_add_up_to_the_model(host: Host) -> None:
    (point,) = analyse(host, Analysis(machines=(processor(),)), layers=3, seq=64).points
    assert [(each.name, each.count) for each in point.layers if each.count > 1] == [
        ("embeddings.word_embeddings", 3),
        ("encoder.layer.0", 3),
    ]
    assert sum(each.count * each.flops for each in point.layers) == total(point)[0]
    assert sum(each.count * each.bytes for each in point.layers) == total(point)[1]
    for at, machine in enumerate(("gemmini", "p")):
        assert all(each.predictions[at].machine == machine for each in point.layers)
        layers = math.fsum(each.count * each.predictions[at].seconds for each in point.layers)
        assert layers == pytest.approx(math.fsum(row.count * row.predictions[at].seconds for row in point.rows))
    block = next(each for each in point.layers if each.name == "encoder.layer.0")
    one = 2 * 64 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 2 * 64 * 64 * 768
    assert block.flops > one and block.predictions[0].bound_by == "compute"
    assert block.intensity == block.flops / block.bytes


def test_operators_without_modules_have_no_layers(host: Host) -> None:
    own = Workload.build("own", [(name, matmul(p=p, c=8, k=8)) for name, p in (("a", 1), ("b", 2))])
    (point,) = profiler.perform(ProfileJob("own", "zoo", "gemmini", workload=own, analysis=Analysis()), host).points
    assert point.layers == ()


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("encoder.layer.3.attention.self", "encoder.layer.3"),
        ("pooler.dense", "pooler.dense"),
        ("layer1.0.conv1", "layer1.0"),
        ("/model/layers.7/mlp/MatMul", "model.layers.7"),
        ("", ""),
    ],
)
def test_parts_of_a_model(module: str, part: str) -> None:
    assert part_of(module) == part


def test_a_frontend_loads_a_sweep_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_many` is asked for everything that is not known yet; its options are checked like any."""
    zoo, asked = host.plugin("frontends", "zoo"), []

    def many(source: str, options: list[Options]) -> list[Workload]:
        asked.append([each["seq"] for each in options])
        return [zoo.load(source, each) for each in options]

    monkeypatch.setattr(zoo, "load_many", many, raising=False)
    found = analyse(host, Analysis(sweep={"seq": (16, 32, 64)}), layers=1)
    assert asked == [[32, 64]] and len(found.points) == 3


def test_traffic_of_a_product_with_little_room() -> None:
    """64^3 in 8 bit words with 3 * 16^2 bytes on chip: tiles of 16 x 16 x 16 move 2 x 64^3 / 16 + 64^2 at most."""
    operator = matmul(p=64, c=64, k=64)
    assert tiled_bytes(operator, 3 * 64 * 64) == 3 * 64 * 64
    found = tiled_bytes(operator, 3 * 16 * 16)
    assert found is not None and 3 * 64 * 64 < found <= 2 * 64**3 / 16 + 64**2
    assert tiled_bytes(operator, 2) is None


OPERATORS = st.one_of(
    st.builds(matmul, p=st.integers(1, 40), c=st.integers(1, 40), k=st.integers(1, 40), bits=st.sampled_from((8, 16))),
    st.builds(batched_matmul, g=st.integers(1, 4), p=st.integers(1, 20), c=st.integers(1, 20), k=st.integers(1, 20), h=st.integers(1, 3)),
    st.builds(
        conv2d,
        r=st.integers(1, 3),
        s=st.integers(1, 3),
        p=st.integers(1, 12),
        q=st.integers(1, 12),
        c=st.integers(1, 8),
        k=st.integers(1, 8),
    ),
)


@given(OPERATORS, st.integers(1, 4000))
def test_less_room_never_means_less_traffic_than_compulsory(operator: Operator, capacity: int) -> None:
    compulsory = operator.read_bytes + operator.write_bytes
    found = tiled_bytes(operator, capacity)
    whole = sum(operator.elements(tensor.name) * tensor.bits / 8 for tensor in operator.tensors)
    assert found is None or found >= compulsory
    if capacity >= whole:
        assert found == compulsory
    if found is not None:
        # No loop nest moves more than one word of every operand, and a partial sum in and out, per multiply-accumulate.
        assert found <= 4 * operator.iterations * max(tensor.bits for tensor in operator.tensors) / 8 + compulsory


def processor(**more: object) -> Machine:
    machine = Machine("p", (Peak(8, 1000.0), Peak(32, 100.0)), (Memory("cache", 50.0, 3 * 16 * 16), Memory("memory", 10.0)))
    return msgspec.structs.replace(machine, **more)


def test_roofs() -> None:
    big = matmul(p=64, c=64, k=64)
    across = tiled_bytes(big, 3 * 16 * 16)
    assert across is not None
    slow = predict(big, big.flops, 3 * 64 * 64, processor())
    assert (slow.bound_by, slow.seconds) == ("memory", across / 10.0)
    busy = predict(big, big.flops, 3 * 64 * 64, processor(peaks=(Peak(8, 10.0),)))
    assert (busy.bound_by, busy.seconds) == ("compute", 2 * 64**3 / 10.0)
    wide = matmul(p=2, c=64, k=2, bits=32)
    assert predict(wide, wide.flops, 0.0, processor(memories=(Memory("m", 1e12),))).seconds == 2 * 2 * 64 * 2 / 100.0


def test_vector_operations_without_a_rate_are_bound_by_memory() -> None:
    softmax = elementwise("softmax", {"P": 4, "K": 8}, reduced=("K",))
    assert predict(softmax, 160.0, 64.0, processor()).bound_by == "memory"
    assert predict(softmax, 160.0, 64.0, processor(vector_ops_per_second=1.0)).bound_by == "compute"
    assert processor().peak(16) == processor().peak(64) == 100.0


def test_a_machine_needs_peaks_and_memories() -> None:
    with pytest.raises(InvalidInput, match="machine 'p': expected at least one of peaks"):
        processor(peaks=()).__post_init__()


def test_the_target_is_a_machine_too(host: Host) -> None:
    (point,) = analyse(host, Analysis(capacity_bytes=1 << 16, machines=(processor(),)), layers=1, seq=64).points
    profile = profiler.perform(ProfileJob("own", "zoo", "s", workload=samples_workload(), architecture=samples.architecture()), host)
    assert profile.points == ()
    assert [each.machine for each in point.rows[0].predictions] == ["gemmini", "p"]
    assert all(row.tiled_bytes is not None and row.tiled_bytes >= row.bytes for row in point.rows)


def samples_workload() -> Workload:
    return Workload.build("own", [("a", matmul(p=1, c=8, k=8))])
