"""What is wrong with a mapping: single ones name it, batches report it per mapping."""

from __future__ import annotations

import msgspec
import nests
import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Compute, Constraints, Level, LevelConstraint
from tilewright.protocol.errors import InvalidArchitecture, InvalidMapping, InvalidOperator
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import Operator, conv2d, elementwise, matmul

OP = matmul(p=8, c=4, k=4)


def machine(words: int = 64, **buffer: object) -> Architecture:
    return Architecture(
        "small",
        Compute("MAC", 8, 4, 2, energy_pj=1.0),
        (
            Level("Buffer", words * 8, keeps=nests.TENSORS, read_energy_pj=1.0, fill_energy_pj=1.0, update_energy_pj=1.0, **buffer),  # type: ignore[arg-type]
            Level("DRAM", keeps=nests.TENSORS, read_energy_pj=9.0, fill_energy_pj=9.0, update_energy_pj=9.0),
        ),
    )


def nest(
    inner: dict[str, int], spatial: tuple[Loop, ...] = (), outer: dict[str, int] | None = None, keep: tuple[str, ...] = nests.TENSORS
) -> Mapping:
    done = {loop.dim: loop.factor for loop in spatial}
    rest = {dim: bound // (inner.get(dim, 1) * done.get(dim, 1)) for dim, bound in OP.bounds.items()}
    return Mapping(
        (
            LevelMapping("Buffer", spatial, tuple(Loop(dim, factor) for dim, factor in inner.items()), keep),
            LevelMapping("DRAM", (), tuple(Loop(dim, factor) for dim, factor in (outer or rest).items()), nests.TENSORS),
        )
    )


def refused(mapping: Mapping, architecture: Architecture | None = None, constraints: Constraints | None = None, **options: object) -> str:
    problem = ln.Problem(OP, architecture or machine(), constraints, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidMapping) as caught:
        ln.cost(problem, mapping)
    evaluation = ln.evaluate(ln.Batch.from_mappings(problem, [mapping]))
    assert not evaluation.valid[0]
    assert np.isinf(evaluation.energy_pj[0])
    assert np.isinf(evaluation.objective("latency")[0])
    assert ln.reasons(evaluation)[0] == str(caught.value)
    return str(caught.value)


def test_capacity_names_level_and_excess() -> None:
    # Weights 4, Inputs 32, Outputs 8 words.
    mapping = nest({"P": 8, "C": 4})
    assert ln.cost(ln.Problem(OP, machine(44)), mapping).cycles == 128
    assert refused(mapping, machine(43)) == "capacity of Buffer (43 words): words exceeded by 1"


def test_multiple_buffering_halves_the_capacity() -> None:
    assert "capacity of Buffer (42 words): words exceeded by 2" in refused(nest({"P": 8, "C": 4}), machine(85, multiple_buffering=2))
    ln.cost(ln.Problem(OP, machine(88, multiple_buffering=2)), nest({"P": 8, "C": 4}))


def test_fan_out_names_level_axis_and_excess() -> None:
    assert refused(nest({}, (Loop("P", 8, "X"),))) == "fan-out of Buffer along X (4): units exceeded by 4"
    assert refused(nest({}, (Loop("C", 4, "Y"),))) == "fan-out of Buffer along Y (2): units exceeded by 2"
    ln.cost(ln.Problem(OP, machine()), nest({}, (Loop("P", 4, "X"), Loop("C", 2, "Y"))))


def test_factors_must_meet_the_bounds() -> None:
    assert refused(nest({}, outer={"P": 8, "C": 4, "K": 2})) == "factors of K below its bound 4: product exceeded by 2"
    assert refused(nest({}, outer={"P": 8, "C": 4, "K": 5})) == "factors of K above its bound 4: product exceeded by 1"
    assert "above its bound" in refused(nest({}, outer={"P": 8, "C": 4, "K": 5}), semantics="walk")


def test_products_beyond_int64_do_not_wrap_round() -> None:
    huge = 2**62
    assert "factors of K above its bound 4" in refused(nest({"K": huge}, outer={"P": 8, "C": 4, "K": huge}))


def test_ragged_loops_are_cut_by_the_walk_and_padded_otherwise() -> None:
    ragged = Mapping(
        (
            LevelMapping("Buffer", (), (Loop("K", 3, ragged=True),), nests.TENSORS),
            LevelMapping("DRAM", (), (Loop("P", 8), Loop("C", 4), Loop("K", 2, ragged=True)), nests.TENSORS),
        )
    )
    [reason] = ln.reasons(ln.check(ln.Batch.from_mappings(ln.Problem(OP, machine()), [ragged])))
    assert "factors of K above its bound 4: product exceeded by 2" in reason
    assert ln.cost(ln.Problem(OP, machine()), ragged).cycles == 192
    assert ln.cost(ln.Problem(OP, machine(), semantics="walk"), ragged).cycles == 128
    short = Mapping(
        (
            LevelMapping("Buffer", (), (Loop("K", 3, ragged=True),), nests.TENSORS),
            LevelMapping("DRAM", (), (Loop("P", 8), Loop("C", 4)), nests.TENSORS),
        )
    )
    assert "factors of K below its bound 4: product exceeded by 1" in refused(short, semantics="walk")


def test_tensors_live_only_where_they_may() -> None:
    assert refused(nest({}), machine(may_keep=("Inputs", "Outputs"))) == "Buffer may not keep Weights: tensors exceeded by 1"
    nowhere = Mapping((LevelMapping("Buffer"), msgspec.structs.replace(nest({}).levels[1], keep=("Weights", "Inputs"))))
    assert "Outputs is kept at no level" in refused(nowhere)


def test_constraints_are_checked() -> None:
    rules = Constraints((LevelConstraint("Buffer", spatial_dims=("C",), temporal_dims=("P",), keep=("Outputs",), max_factors={"P": 2}),))
    text = refused(nest({"P": 4, "K": 2}, (Loop("K", 2, "X"),)), constraints=rules)
    assert text == (
        "temporal P at Buffer: factor over 2 exceeded by 2; spatial K below Buffer: factor over 1 exceeded by 1; "
        "temporal K at Buffer: factor over 1 exceeded by 1; Buffer must keep Outputs: tensors exceeded by 2"
    )


def test_pools_share_one_memory() -> None:
    """Two levels, one memory: each tensor has its own tile boundary, the sum of the tiles must fit."""
    parts = [Level(f"Buffer{t[0]}", 40 * 8, keeps=(t,), pool="buffer", read_energy_pj=1.0) for t in ("Weights", "Inputs")]
    architecture = Architecture("pool", Compute("MAC", 1), (*parts, Level("DRAM", keeps=nests.TENSORS, read_energy_pj=9.0)))
    problem = ln.Problem(OP, architecture)

    def tiles(p: int, k: int) -> Mapping:
        return Mapping(
            (
                LevelMapping("BufferW", (), (Loop("C", 4), Loop("K", k)), ("Weights",)),
                LevelMapping("BufferI", (), (Loop("P", p),), ("Inputs",)),
                LevelMapping("DRAM", (), (Loop("K", 4 // k), Loop("P", 8 // p)), nests.TENSORS),
            )
        )

    ln.cost(problem, tiles(p=8, k=2))
    with pytest.raises(InvalidMapping, match=r"capacity of pool buffer \(320 bits\): bits exceeded by 64"):
        ln.cost(problem, tiles(p=8, k=4))


def test_violations_count_and_rank() -> None:
    problem = ln.Problem(OP, machine(20))
    mappings = [nest({"P": 8, "C": 4}), nest({"P": 8, "C": 2}), nest({"P": 2}), nest({}, (Loop("P", 8, "X"),))]
    evaluation = ln.evaluate(ln.Batch.from_mappings(problem, mappings))
    assert evaluation.valid.tolist() == [False, False, True, False]
    assert evaluation.reasons[2] == -1
    found = ln.violations(evaluation)
    assert (found[0].constraint, found[0].rejected, found[0].least_excess) == ("capacity of Buffer (20 words): words", 2, 6.0)
    assert (found[1].constraint, found[1].rejected) == ("fan-out of Buffer along X (4): units", 1)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (nests.scatter(4, 3, 2, 2, 2), "tensors.Outputs: the written tensor has a rank that mixes the dims P and R.*'timeloop'.*'walk'"),
        (nests.scatter(4, 1, 2, 2, 2), "tensors.Outputs: the written tensor has a stride of 2 along P"),
        (conv2d(r=1, s=1, p=2**16, q=2**16, c=2**16, k=2**16), "dims: R=1 x S=1 x P=65536.*beyond what int64 holds"),
    ],
)
def test_operators_that_cannot_be_counted(op: Operator, message: str) -> None:
    with pytest.raises(InvalidOperator, match=message):
        ln.Problem(op, machine())


def test_architectures_that_cannot_be_costed() -> None:
    with pytest.raises(InvalidArchitecture, match=r"small.levels.0..read_bandwidth: expected `float` > 0.0"):
        ln.Problem(OP, machine(read_bandwidth=0.0))
    with pytest.raises(InvalidArchitecture, match=r"Buffer.shared_bandwidth: 1e-18 words per cycle: cycles may go beyond what int64 holds"):
        ln.Problem(OP, machine(shared_bandwidth=1e-18))
    with pytest.raises(InvalidArchitecture, match="constraints: level 'Bufer' is unknown; did you mean 'Buffer'"):
        ln.Problem(OP, machine(), Constraints((LevelConstraint("Bufer"),)))
    with pytest.raises(InvalidArchitecture, match="special_function_unit: none, but the operator's function is 'gelu'"):
        ln.Problem(elementwise("gelu", {"P": 4}), machine())
    with pytest.raises(InvalidOperator, match="semantics: 'ruby', expected 'timeloop' or 'walk'"):
        ln.Problem(OP, machine(), semantics="ruby")  # type: ignore[arg-type]


def test_ragged_windows_that_coincide_are_refused() -> None:
    op = conv2d(r=3, s=1, p=7, q=1, c=1, k=1)
    problem = ln.Problem(op, nests.wide(2), semantics="walk")
    mapping = Mapping(
        (
            LevelMapping("L0", (Loop("P", 4, "X", ragged=True), Loop("R", 3, "Y")), (), nests.TENSORS),
            LevelMapping("L1", (), (Loop("P", 2, ragged=True),), nests.TENSORS),
        )
    )
    with pytest.raises(InvalidMapping, match="ragged spatial loops along one window of Inputs below L0"):
        ln.cost(problem, mapping)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block_words": 0}, r"^small.levels\[0\].block_words: expected `int` >= 1$"),
        ({"word_bits": 0}, "word_bits"),
        ({"multiple_buffering": 0}, "multiple_buffering"),
        ({"cluster_size": -1}, "cluster_size"),
        ({"read_bandwidth": -1.0}, "read_bandwidth"),
        ({"shared_bandwidth": float("nan")}, "shared_bandwidth"),
        ({"write_bandwidth": "fast"}, r"write_bandwidth: expected `float \| null`, got `str`"),
        ({"update_energy_pj": -1.0}, "update_energy_pj"),
    ],
)
def test_fields_out_of_range_are_named(fields: dict[str, object], message: str) -> None:
    good = machine()
    bad = msgspec.structs.replace(good, levels=(msgspec.structs.replace(good.levels[0], **fields), *good.levels[1:]))
    with pytest.raises(InvalidArchitecture, match=message):
        ln.Problem(OP, bad)
    with pytest.raises(InvalidArchitecture, match=message):
        ln.Problem(OP, good).on(bad)


def test_bounds_that_are_no_int64_are_named() -> None:
    with pytest.raises(InvalidOperator, match=r"dims.P: bound is 10{30}, beyond what int64"):
        ln.Problem(matmul(p=10**30, c=1, k=1), machine())
    with pytest.raises(InvalidOperator, match=r"operator.dims\[0\]\[1\]: expected `int`, got `float`"):
        ln.Problem(matmul(p=2.5, c=1, k=1), machine())  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    plain, architecture = matmul(p=8, c=4, k=4), machine()
    counted = msgspec.structs.replace(architecture, compute=Compute("MAC", np.int64(8), np.int64(4), np.int64(2), energy_pj=np.float64(1)))  # type: ignore[arg-type]
    ours = ln.cost(ln.Problem(matmul(p=np.int64(8), c=4, k=4), counted), nest({}))  # type: ignore[arg-type]
    assert ours.energy_pj == ln.cost(ln.Problem(plain, architecture), nest({})).energy_pj


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (Loop("P", 2.5), r"Buffer.P: factor 2.5, expected an integer"),  # type: ignore[arg-type]
        (Loop("P", 10**30), r"Buffer.P: factor 10{30}, expected at least 1 and at most"),
        (Loop("P", 0), r"Buffer.P: factor 0, expected at least 1"),
        (Loop("P", 2, "Z"), r"Buffer.P: axis 'Z', expected X or Y"),  # type: ignore[arg-type]
    ],
)
def test_loops_that_are_none_are_named(loop: Loop, message: str) -> None:
    wrong = Mapping((LevelMapping("Buffer", (loop,)), LevelMapping("DRAM", keep=nests.TENSORS)))
    with pytest.raises(InvalidMapping, match=message):
        ln.Batch.from_mappings(ln.Problem(OP, machine()), [wrong])


def test_arrays_are_not_rounded() -> None:
    problem = ln.Problem(OP, machine())
    batch = ln.Batch.from_mappings(problem, [nest({})])
    with pytest.raises(InvalidMapping, match=r"temporal: .*0.5.*, expected what int64 holds"):
        ln.Batch(problem, batch.temporal / 2, batch.spatial, batch.axis, batch.order, batch.keep)  # type: ignore[arg-type]
    whole = ln.Batch(problem, batch.temporal.astype(float), batch.spatial, batch.axis, batch.order, batch.keep)  # type: ignore[arg-type]
    assert (whole.temporal == batch.temporal).all()
    assert whole.temporal.dtype == np.int64
