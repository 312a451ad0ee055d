"""The mapper service: whatever a plugin finds and claims, what is recorded is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Constraints, LevelConstraint
from tilewright.protocol.codec import encode
from tilewright.protocol.cost import Claim
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import Loop, Mapping
from tilewright.protocol.messages import MapJob
from tilewright.protocol.plugin import Budget, Candidate, MapRequest
from tilewright.services import mapper
from tilewright.services.runtime.checkpoints import Checkpoint, pack
from tilewright.services.runtime.claims import ClaimState
from tilewright.services.runtime.frames import Saved
from tilewright.services.runtime.host import Host
from tilewright.testing import samples

from .conftest import Heard, Offer

OPERATOR = samples.OPERATORS["matmul"]
ARCHITECTURE = samples.architecture()
JOB = MapJob(OPERATOR, ARCHITECTURE, Constraints(), "edp", "scripted", Budget(evaluations=500))


def value(mapping: Mapping, objective: Any = "edp") -> float:
    return ln.cost(ln.Problem(OPERATOR, ARCHITECTURE), mapping).objective(objective)


OUTERMOST = samples.outermost(OPERATOR, ARCHITECTURE)


def better(factor: int) -> Mapping:
    """The outermost mapping with some rows in parallel."""
    *inner, last = OUTERMOST.levels
    temporal = tuple(Loop(loop.dim, loop.factor // (factor if loop.dim == "P" else 1)) for loop in last.temporal)
    inner[1] = msgspec.structs.replace(inner[1], spatial=(Loop("P", factor),))
    return Mapping((*inner, msgspec.structs.replace(last, temporal=temporal)))


def invalid() -> Mapping:
    """A factor is missing."""
    *inner, last = OUTERMOST.levels
    return Mapping((*inner, msgspec.structs.replace(last, temporal=last.temporal[1:])))


def scripted(*candidates: Candidate) -> type:
    class Scripted:
        options: ClassVar[dict[str, str]] = {}

        def search(self, request: MapRequest, ctx: Any) -> Iterator[Candidate]:
            yield from candidates

    return Scripted


@pytest.mark.parametrize("name", ["random", "cosa"])
@pytest.mark.parametrize("objective", ["edp", "energy", "latency"])
def test_a_schedule_has_the_cost_of_its_mapping(host: Host, heard: Heard, name: str, objective: Any) -> None:
    found = mapper.perform(msgspec.structs.replace(JOB, mapper=name, objective=objective), host)
    assert found.complete
    assert found.schedule is not None
    assert found.schedule.cost == ln.cost(ln.Problem(OPERATOR, ARCHITECTURE), found.schedule.mapping)
    assert (found.schedule.objective, found.schedule.architecture) == (objective, content_key(ARCHITECTURE))
    values = [figures[objective] for figures in heard.partial]
    assert values == sorted(values, reverse=True)
    assert values[-1] == found.schedule.cost.objective(objective)
    assert 0 < found.evaluations <= 500


def test_what_is_no_better_is_dropped(host: Host, heard: Heard, offer: Offer) -> None:
    offer("mappers", "scripted", scripted(Candidate(better(2)), Candidate(OUTERMOST), Candidate(invalid()), Candidate(better(4))))
    found = mapper.perform(JOB, host)
    assert found.schedule is not None
    assert found.schedule.mapping == better(2)
    assert value(better(2)) < value(better(4)) < value(OUTERMOST)
    assert len(heard.partial) == 1
    assert found.schedule.claim == Claim("best found")


def test_only_invalid_mappings_are_the_plugins_fault(host: Host, offer: Offer) -> None:
    offer("mappers", "scripted", scripted(Candidate(invalid())))
    with pytest.raises(BrokenPlugin, match="mapper 'scripted' found only mappings that the cost model rejects: "):
        mapper.perform(JOB, host)


def test_constraints_hold_for_what_is_found(host: Host, offer: Offer) -> None:
    offer("mappers", "scripted", scripted(Candidate(better(4)), Candidate(OUTERMOST)))
    job = msgspec.structs.replace(JOB, constraints=Constraints((LevelConstraint("Buffer", spatial_dims=("K",)),)))
    found = mapper.perform(job, host)
    assert found.schedule is not None
    assert found.schedule.mapping == OUTERMOST


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        # Proven, and reached.
        ([Claim("optimal", "all", 1.0)], Claim("optimal", "all", 1.0, 0.0)),
        # Claimed without proof.
        ([Claim("optimal", "all")], Claim("best found")),
        # Claimed, but the bound is lower: a bound it is, an optimum it is not.
        ([Claim("optimal", "all", 0.8)], Claim("best found", "all", 0.8, 0.25)),
        # What was found is below the bound: the bound is refuted.
        ([Claim("optimal", "all", 1.5)], Claim("best found")),
        # The gap is worked out here, whatever the plugin says.
        ([Claim("best found", "all", 0.5, 0.01)], Claim("best found", "all", 0.5, 1.0)),
        # A better bound may come with a mapping that is no better.
        ([Claim("best found", "all", 0.5), Claim("optimal", "all", 1.0)], Claim("optimal", "all", 1.0, 0.0)),
        # An optimum of something else is called by its name.
        ([Claim("proxy optimum", "cosa")], Claim("proxy optimum", "cosa")),
    ],
)
def test_claims_are_checked(host: Host, offer: Offer, claims: list[Claim], expected: Claim) -> None:
    best = value(OUTERMOST)
    scaled = [msgspec.structs.replace(each, lower_bound=each.lower_bound and each.lower_bound * best) for each in claims]
    offer("mappers", "scripted", scripted(*(Candidate(OUTERMOST, claim) for claim in scaled)))
    found = mapper.perform(JOB, host)
    assert found.schedule is not None
    claim = found.schedule.claim
    assert (claim.kind, claim.mapspace) == (expected.kind, expected.mapspace)
    assert claim.lower_bound == (pytest.approx(expected.lower_bound * best) if expected.lower_bound else None)
    assert claim.gap == (pytest.approx(expected.gap) if expected.gap is not None else None)


def test_a_proxy_optimum_is_only_the_mapping_it_was_claimed_for(host: Host, offer: Offer) -> None:
    offer("mappers", "scripted", scripted(Candidate(OUTERMOST, Claim("proxy optimum", "cosa")), Candidate(better(4))))
    found = mapper.perform(JOB, host)
    assert found.schedule is not None
    assert found.schedule.claim == Claim("best found")


def test_a_gap_that_is_small_enough_ends_the_search(host: Host, offer: Offer) -> None:
    bound = 0.9 * value(OUTERMOST)
    offer("mappers", "scripted", scripted(Candidate(OUTERMOST, Claim("best found", "all", bound)), Candidate(better(4))))
    found = mapper.perform(msgspec.structs.replace(JOB, budget=Budget(gap=0.2)), host)
    assert found.schedule is not None
    assert found.schedule.mapping == OUTERMOST
    assert found.complete


def small(words: int) -> Architecture:
    """The sample with a buffer of that many words."""
    registers, buffer, memory = ARCHITECTURE.levels
    return msgspec.structs.replace(ARCHITECTURE, levels=(registers, msgspec.structs.replace(buffer, capacity_bits=8 * words), memory))


def test_infeasible_says_what_is_missing(host: Host) -> None:
    """Three tensors must be kept in a buffer of two words: one word each is the least they need."""
    found = mapper.perform(msgspec.structs.replace(JOB, architecture=small(2), mapper="random"), host)
    assert found.schedule is None
    assert found.infeasible is not None
    capacity = next(each for each in found.infeasible.violations if each.constraint.startswith("capacity of Buffer"))
    assert capacity.least_excess == 1
    assert capacity.rejected == found.infeasible.tried == found.evaluations
    assert found.infeasible.smallest_change == "capacity of Buffer (2 words): 1 more words"
    again = mapper.perform(msgspec.structs.replace(JOB, architecture=small(3), mapper="random"), host)
    assert again.schedule is not None, "with the smallest change it fits"


def test_time_is_a_cut(host: Host, offer: Offer) -> None:
    class Endless:
        options: ClassVar[dict[str, str]] = {}

        def search(self, request: MapRequest, ctx: Any) -> Iterator[Candidate]:
            yield Candidate(OUTERMOST)
            while True:
                ctx.charge(1)

    offer("mappers", "scripted", Endless)
    found = mapper.perform(msgspec.structs.replace(JOB, budget=Budget(seconds=0.05)), host)
    assert found.schedule is not None
    assert not found.complete
    assert found.stopped.endswith("time limit of 0.05 s")
    counted = mapper.perform(msgspec.structs.replace(JOB, budget=Budget(evaluations=7)), host)
    assert (counted.complete, counted.stopped) == (True, "budget of 7 evaluations used")


def test_time_that_a_mapper_notices_by_itself_is_a_cut_too(host: Host, offer: Offer) -> None:
    class Polite:
        options: ClassVar[dict[str, str]] = {}

        def search(self, request: MapRequest, ctx: Any) -> Iterator[Candidate]:
            yield Candidate(OUTERMOST)
            while not ctx.cancelled:
                pass

    offer("mappers", "scripted", Polite)
    found = mapper.perform(msgspec.structs.replace(JOB, budget=Budget(seconds=0.05)), host)
    assert (found.complete, found.stopped) == (False, "stopped by the time limit or a cancellation")


def test_cancelled_before_anything_was_found(host: Host, offer: Offer) -> None:
    offer("mappers", "scripted", scripted())
    host.cancelled = True
    with pytest.raises(Cancelled):
        mapper.perform(JOB, host)


def test_unknown_options_are_refused(host: Host) -> None:
    with pytest.raises(InvalidInput, match=r"options.sampels: mapper 'random' has no such option; did you mean 'samples'\?"):
        mapper.perform(msgspec.structs.replace(JOB, mapper="random", options={"sampels": 3}), host)


def test_a_search_goes_on_where_another_ended(heard: Heard) -> None:
    """From any state that was kept, a search of the mapper that yields its state comes to the very same answer."""
    job = msgspec.structs.replace(JOB, mapper="random", budget=Budget(evaluations=30_000))
    undisturbed = mapper.perform(job, Host(heard.append, checkpoint_every=0.0))
    kept = [frame.data for frame in heard if isinstance(frame, Saved)]
    states = [Checkpoint.read(data) for data in kept]
    assert len(kept) >= 2
    for data, state in ((kept[0], states[0]), (kept[-1], states[-1])):
        assert state is not None and state.state is not None
        assert 0 < state.evaluations < undisturbed.evaluations
        host = Host(heard.append)
        host.saved = data
        assert mapper.perform(job, host) == undisturbed


class Twice:
    """Yields what it is told at the first attempt, nothing at the second, until it is cancelled."""

    options: ClassVar[dict[str, str]] = {}

    def __init__(self, *candidates: Candidate) -> None:
        self._candidates = candidates

    def search(self, request: MapRequest, ctx: Any) -> Iterator[Candidate]:
        assert request.resume is None
        yield from self._candidates


def kept_of(offer: Offer, heard: Heard, *candidates: Candidate) -> bytes:
    offer("mappers", "scripted", lambda: Twice(*candidates))
    mapper.perform(JOB, Host(heard.append, checkpoint_every=0.0))
    return [frame.data for frame in heard if isinstance(frame, Saved)][-1]


def test_what_an_earlier_attempt_found_counts_where_the_search_is_cut_only(offer: Offer, heard: Heard) -> None:
    data = kept_of(offer, heard, Candidate(OUTERMOST), Candidate(better(2)))
    offer("mappers", "worse", lambda: Twice(Candidate(OUTERMOST)))
    job = msgspec.structs.replace(JOB, mapper="worse")
    complete = Host(heard.append)
    complete.saved = data
    found = mapper.perform(job, complete)
    assert found.complete and found.schedule is not None and found.schedule.mapping == OUTERMOST
    cut = Host(heard.append)
    cut.saved, cut.cancelled = data, True
    found = mapper.perform(msgspec.structs.replace(job, budget=Budget(seconds=1e-9)), cut)
    assert not found.complete and found.schedule is not None and found.schedule.mapping == better(2)


@pytest.mark.parametrize("data", [b"garbage", pack(Candidate(invalid()), 3, ClaimState(), b"x"), encode(Checkpoint("no candidate", 1))])
def test_a_checkpoint_that_cannot_be_used_is_none(offer: Offer, heard: Heard, data: bytes) -> None:
    offer("mappers", "scripted", lambda: Twice(Candidate(OUTERMOST)))
    host = Host(heard.append)
    host.saved = data
    found = mapper.perform(JOB, host)
    assert found.schedule is not None and found.schedule.mapping == OUTERMOST
