"""What each role may say and hear on a server with users: enough for its work, and nothing else.

A *role* is a service, ``pipeline``, ``client`` (the command line of somebody who runs things) or ``admin`` (who makes the
streams and looks after queues). Each has replies sent to an inbox of its own, so no role hears what another one is told.

What a role writes is bounded by subject: a service publishes outcomes and events of its own stage, and answers and attempts
below its own stage's keys. What it reads is bounded by stream.
"""

from __future__ import annotations

import msgspec

from . import subjects
from .errors import InvalidInput, suggest
from .subjects import PIPELINE, PREFIX, SERVICES, Stage, durable, job_stream

CLIENT, ADMIN = "client", "admin"
ROLES: tuple[str, ...] = (ADMIN, CLIENT, PIPELINE, *SERVICES.values())
API = "$JS.API"
#: Any one word of a subject.
ANY = "*"


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a role may publish to and subscribe to; whoever it is not told about, it may answer once if asked."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    #: Whether it may answer requests.
    answers: bool = True


def inbox(role: str) -> str:
    """First word of the subjects that a role gets replies on."""
    return f"_INBOX_{role}"


def permissions(role: str) -> Permissions:
    """What a role may do; `InvalidInput` for an unknown one."""
    if role == ADMIN:
        return Permissions((f"{API}.>", "tw.>"), (f"{inbox(role)}.>",), answers=False)
    if role == CLIENT:
        return Permissions(_client(), (f"{inbox(role)}.>",), answers=False)
    if role == PIPELINE:
        return Permissions(_pipeline(), _listens(role))
    for stage, service in SERVICES.items():
        if service == role:
            return Permissions(_worker(stage), (*_listens(role), subjects.cancel_subject(ANY)))
    raise InvalidInput(f"role {role!r} is unknown{suggest(role, ROLES)}")


def _listens(service: str) -> tuple[str, ...]:
    """Its inbox, and the questions that a service answers: who is there, and how it is."""
    return (f"{inbox(service)}.>", "$SRV.*", f"$SRV.*.{service}", f"$SRV.*.{service}.*", f"tw.{service}.status")


def _works_off(stream: str) -> tuple[str, ...]:
    """Fetch from a queue and settle what was fetched (the server forgets a delivery when it crashes: then the message is removed)."""
    consumer = durable(stream)
    return (
        f"{API}.CONSUMER.INFO.{stream}.{consumer}",
        f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
        f"{API}.STREAM.MSG.DELETE.{stream}",
    )


def _watches(stream: str) -> tuple[str, ...]:
    """See how much a queue holds, and what."""
    return (f"{API}.STREAM.INFO.{stream}", f"{API}.CONSUMER.INFO.{stream}.{durable(stream)}")


def _reads(bucket: str) -> tuple[str, ...]:
    return (f"{API}.STREAM.INFO.KV_{bucket}", f"{API}.STREAM.MSG.GET.KV_{bucket}")


def _blobs() -> tuple[str, ...]:
    """Read and write blobs: their names are their contents' hashes, so a wrong one is noticed by whoever reads it."""
    stream = subjects.BLOB_STREAM
    return (
        f"{API}.STREAM.INFO.{stream}",
        f"{API}.DIRECT.GET.{stream}",
        f"{API}.DIRECT.GET.{stream}.>",
        subjects.blob_parts(ANY),
    )


def _worker(stage: Stage) -> tuple[str, ...]:
    return (
        *_works_off(job_stream(stage)),
        *_reads(subjects.RUNS_BUCKET),
        *_reads(subjects.RESULTS_BUCKET),
        *_reads(subjects.ATTEMPTS_BUCKET),
        *_reads(subjects.CHECKPOINTS_BUCKET),
        f"$KV.{subjects.RESULTS_BUCKET}.{stage}.>",
        f"$KV.{subjects.CHECKPOINTS_BUCKET}.{stage}.>",
        f"$KV.{subjects.ATTEMPTS_BUCKET}.{stage}.>",
        *_blobs(),
        subjects.done_subject(ANY, stage),
        f"{PREFIX}.evt.*.{stage}.*.*",
        subjects.dead_subject(stage),
    )


def _pipeline() -> tuple[str, ...]:
    queues = [job_stream(stage) for stage in SERVICES]
    return (
        *(subject for queue in (subjects.RUN_STREAM, subjects.DONE_STREAM) for subject in _works_off(queue)),
        *(subject for queue in (*queues, subjects.DONE_STREAM) for subject in _watches(queue)),
        *(f"{PREFIX}.job.{stage}.*.*" for stage in SERVICES),
        *_reads(subjects.RUNS_BUCKET),
        *_reads(subjects.TASKS_BUCKET),
        *_reads(subjects.RESULTS_BUCKET),
        f"$KV.{subjects.RUNS_BUCKET}.*",
        f"$KV.{subjects.TASKS_BUCKET}.*.*",
        *_blobs(),
        f"{PREFIX}.evt.>",
        subjects.dead_subject(PIPELINE),
        subjects.cancel_subject(ANY),
    )


def _client() -> tuple[str, ...]:
    events = subjects.EVENT_STREAM
    queues = [job_stream(stage) for stage in SERVICES]
    return (
        subjects.SUBMIT,
        subjects.CANCEL,
        *_reads(subjects.RUNS_BUCKET),
        *_reads(subjects.TASKS_BUCKET),
        *_reads(subjects.RESULTS_BUCKET),
        *_blobs(),
        *(subject for queue in (*queues, subjects.RUN_STREAM, subjects.DONE_STREAM) for subject in _watches(queue)),
        f"{API}.STREAM.INFO.{events}",
        f"{API}.STREAM.MSG.GET.{events}",
        f"{API}.CONSUMER.CREATE.{events}.*",
        f"{API}.CONSUMER.MSG.NEXT.{events}.*",
        f"{API}.CONSUMER.DELETE.{events}.*",
        "$SRV.STATS",
    )
