"""Every setting of every stream, consumer and bucket. Only the embedded start and ``tilewright admin init`` call this.

======================  ==========================================  ==========================================================
stream                  kept                                        why
======================  ==========================================  ==========================================================
``TW_JOB_<STAGE>``      until done (work queue)                     full = publishers get `Backlog`
``TW_RUN`` ``TW_DONE``  until done (work queue)                     the pipeline's only inputs, never given up
``TW_EVT``              7 days, newest first                        for people; persisted asynchronously
``TW_DEAD``             as long as runs                             given-up jobs with their reasons
``TW_BLOB``             37 days, newest first                       outlives every result that refers to it
``KV_tw_results``       30 days, newest first                       a cache: bounded, so that run state can always be written
``KV_tw_checkpoints``   7 days, newest first                        searches that go on where another worker ended
``KV_tw_runs`` ...      30 days                                     run state, tasks, attempts
======================  ==========================================  ==========================================================
"""

from __future__ import annotations

import asyncio
from typing import Any

import nats.js.errors

from . import subjects
from ._blobs import REFRESH_AFTER
from ._connection import check_schema, schema_of
from .bus import Bus
from .errors import InvalidInput, NoConnection
from .subjects import PREFIX, SCHEMA, SCHEMA_KEY, Limits

#: Looks at a stream for which there seems to be no room: two processes that make it at once need it twice for a moment.
ATTEMPTS = 5
_NO_ROOM, _REFUSED = (10047, 10023, 10028), (10052, 10058, 10065)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def streams(limits: Limits, replicas: int = 1) -> list[dict[str, Any]]:
    """The stream configurations (JetStream API fields), buckets included."""

    def stream(name: str, subject: str, age: float, **settings: Any) -> dict[str, Any]:
        return {
            "name": name,
            "subjects": [subject],
            "storage": "file",
            "num_replicas": replicas,
            "max_age": _ns(age),
            "duplicate_window": _ns(min(limits.duplicate_window, age)),
            "metadata": {SCHEMA_KEY: str(SCHEMA)},
            **{"retention": "limits", "discard": "old", "max_msgs": -1, "max_bytes": -1, "max_msgs_per_subject": -1, **settings},
        }

    def queue(name: str, subject: str, messages: int) -> dict[str, Any]:
        settings = {"retention": "workqueue", "discard": "new", "max_msgs": messages, "max_bytes": limits.queue_bytes}
        return stream(name, subject, limits.run_age, **settings)

    def bucket(name: str, age: float, **settings: Any) -> dict[str, Any]:
        # No roll-ups: one message with that header, on a key that its sender may write, would remove everybody's keys.
        shape = {"max_msgs_per_subject": 1, "allow_direct": True, "allow_rollup_hdrs": False, "deny_delete": True, "discard": "new"}
        return stream(f"KV_{name}", f"$KV.{name}.>", age, **{**shape, **settings})

    persistence = {"persist_mode": "async"} if replicas == 1 else {}
    return [
        *(queue(subjects.job_stream(stage), subjects.job_subject(stage), limits.job_messages) for stage in subjects.STAGES),
        queue(subjects.RUN_STREAM, f"{PREFIX}.run.>", -1),
        queue(subjects.DONE_STREAM, f"{PREFIX}.done.>", -1),
        stream(
            subjects.EVENT_STREAM,
            f"{PREFIX}.evt.>",
            limits.event_age,
            max_bytes=limits.event_bytes,
            max_msgs_per_subject=1000,
            allow_direct=True,
            **persistence,
        ),
        stream(subjects.DEAD_STREAM, f"{PREFIX}.dead.*", limits.run_age, max_bytes=limits.queue_bytes, allow_direct=True),
        stream(
            subjects.BLOB_STREAM,
            f"{PREFIX}.blob.*.*",
            limits.blob_age,
            max_bytes=limits.blob_bytes,
            max_msgs_per_subject=1,
            allow_direct=True,
        ),
        bucket(subjects.RESULTS_BUCKET, limits.result_age, max_bytes=limits.result_bytes, discard="old"),
        bucket(subjects.CHECKPOINTS_BUCKET, limits.checkpoint_age, max_bytes=limits.checkpoint_bytes, discard="old"),
        *(bucket(name, limits.run_age) for name in (subjects.RUNS_BUCKET, subjects.TASKS_BUCKET, subjects.ATTEMPTS_BUCKET)),
    ]


def consumers(ack_wait: float) -> dict[str, dict[str, Any]]:
    """Stream -> configuration of its one durable consumer."""
    queues = [*(subjects.job_stream(stage) for stage in subjects.STAGES), subjects.RUN_STREAM, subjects.DONE_STREAM]
    return {
        stream: {
            "name": subjects.durable(stream),
            "durable_name": subjects.durable(stream),
            "ack_policy": "explicit",
            "ack_wait": _ns(ack_wait),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_deliver": subjects.MAX_DELIVERIES if stream.startswith("TW_JOB_") else -1,
            "max_ack_pending": 10_000,
            "max_waiting": 4096,
            "metadata": {SCHEMA_KEY: str(SCHEMA)},
        }
        for stream in queues
    }


async def bootstrap(bus: Bus, limits: Limits | None = None, *, replicas: int = 1, ack_wait: float = 30.0) -> list[str]:
    """Create what is missing and update what differs; the names of what was created or changed.

    Safe to repeat and to run from several processes at once. Raises `InvalidInput` for limits that contradict each other or
    an existing stream (what cannot be changed: its kind of retention, its persistence), `NoConnection` when the server has
    no room for the streams or holds those of a newer version.
    """
    limits = limits or Limits()
    if limits.blob_age < limits.result_age + REFRESH_AFTER:
        expected = limits.result_age + REFRESH_AFTER
        raise InvalidInput(
            f"limits.blob_age: {limits.blob_age:g} s, expected at least {expected:g} s: a blob outlives the results that name it"
        )
    changed = []
    for config in streams(limits, replicas):
        if await _stream(bus, config):
            changed.append(config["name"])
    for stream, consumer in consumers(ack_wait).items():
        if await _consumer(bus, stream, consumer):
            changed.append(consumer["name"])
    return changed


def _differs(wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    """True when a field that we set has another value (absent fields are at their zero)."""
    for key, value in wanted.items():
        there = found.get(key)
        if isinstance(value, dict):
            if _differs(value, there or {}):
                return True
        elif value != there and (value or there):
            return True
    return False


def _merged(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Our settings over what is there: what an operator added (placement, a description) stays."""
    return {**found, **wanted, "metadata": {**(found.get("metadata") or {}), **wanted["metadata"]}}


async def _stream(bus: Bus, config: dict[str, Any], attempts: int = ATTEMPTS) -> bool:
    """Create or update one stream; False when it is as it should be."""
    name = config["name"]
    try:
        found = (await bus.connection.api(f"STREAM.INFO.{name}"))["config"]
    except nats.js.errors.NotFoundError:
        found = None
    if found is not None and schema_of(found) > SCHEMA:
        check_schema(f"stream {name}", found)
    if found is not None and not _differs(config, found):
        return False
    try:
        if found is None:
            await bus.connection.api(f"STREAM.CREATE.{name}", config)
        else:
            await bus.connection.api(f"STREAM.UPDATE.{name}", _merged(found, config))
    except nats.js.errors.APIError as error:
        if error.err_code in _REFUSED:
            raise InvalidInput(f"stream {name}: {error.description}; delete what is in the way, or keep its settings") from error
        if error.err_code not in _NO_ROOM:
            raise
        if attempts == 1:
            raise NoConnection(f"stream {name}: no room for its {config['max_bytes']} bytes ({error.description})") from error
        await asyncio.sleep(0.1)
        return await _stream(bus, config, attempts - 1)
    return True


async def _consumer(bus: Bus, stream: str, config: dict[str, Any]) -> bool:
    try:
        found = (await bus.connection.api(f"CONSUMER.INFO.{stream}.{config['name']}"))["config"]
        if not _differs(config, found):
            return False
    except nats.js.errors.NotFoundError:
        pass
    await bus.connection.api(f"CONSUMER.CREATE.{stream}.{config['name']}", {"stream_name": stream, "config": config})
    return True
