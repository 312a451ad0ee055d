"""One NATS connection and the rule for asking over it: ask again after a reconnect or a timeout, for a bounded time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import nats.errors
import nats.js.errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from . import _dial, subjects
from ._settings import BusSettings
from .errors import NoConnection, NotBootstrapped

T = TypeVar("T")
log = logging.getLogger("tilewright.bus")
# nats-py logs tracebacks of what its error callback is told anyway.
logging.getLogger("nats").setLevel(logging.CRITICAL)

#: Seconds that one attempt may take.
ATTEMPT = 5.0
#: Seconds after which asking ends with `NoConnection`; longer than a leader election takes.
PATIENCE = 30.0
#: Seconds for which "no responders" may mean that a stream is only just coming back, from one server and in a cluster.
SETTLING, ELECTING = 1.0, 12.0
#: Seconds that one subscription may take to end, in order.
UNSUBSCRIBING = 2.0
#: Seconds that closing may take.
CLOSING = 6.0

#: JetStream error codes.
STREAM_NOT_FOUND, CONSUMER_NOT_FOUND = 10059, 10014
_DISABLED = (10039, 10076)
_UNAVAILABLE = 10008

_TRANSIENT = (
    nats.errors.TimeoutError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.StaleConnectionError,
)
_ABSENT = (nats.errors.NoRespondersError, nats.js.errors.NoStreamResponseError, nats.js.errors.ServiceUnavailableError)


class _Client(Client):
    """A client that does not introduce itself in clear where TLS was asked for (nats-py leaves that to the server)."""

    def __init__(self, *, demands_tls: bool) -> None:
        super().__init__()
        self._demands_tls = demands_tls

    def _connect_command(self) -> bytes:
        if self._demands_tls and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()

    async def _connect_to_server(self, server: Srv) -> None:
        """Connect; the line of a failed attempt is closed first (nats-py would leave it to the garbage collector)."""
        if self._transport:
            cast("Callable[[], None]", self._transport.close)()
        await super()._connect_to_server(server)

    @property
    def is_clustered(self) -> bool:
        """True when the server is one of several: a stream may be without a leader for some seconds."""
        return bool(self._server_info.get("cluster"))

    def forget_unsent(self) -> None:
        """Drop what could not be sent: closing over a dead line would try to, and raise halfway."""
        self._pending.clear()
        self._pending_data_size = 0

    @property
    def has_started(self) -> bool:
        """False when connecting failed before the first attempt; such a client cannot be closed."""
        return self._flush_queue is not None


class Interrupted(Exception):
    """The connection was lost and is back (or is closed): what was being waited for may never come."""


def not_bootstrapped(what: str) -> NotBootstrapped:
    """The error for a stream, consumer or bucket that is not there."""
    return NotBootstrapped(f"{what} does not exist on this NATS server; run `tilewright admin init`")


def schema_of(config: dict[str, Any]) -> int:
    """The layout number that bootstrap wrote into a stream's or consumer's metadata; 0 when there is none."""
    number = (config.get("metadata") or {}).get(subjects.SCHEMA_KEY, "0")
    return int(number) if number.isdecimal() else 0


def check_schema(what: str, config: dict[str, Any]) -> None:
    """Raise unless a stream or consumer has our layout: `NoConnection` for a newer one, `NotBootstrapped` for an older one."""
    found = schema_of(config)
    if found > subjects.SCHEMA:
        raise NoConnection(f"{what} has layout {found}, expected {subjects.SCHEMA}: a newer tilewright made it; upgrade this one")
    if found < subjects.SCHEMA:
        raise NotBootstrapped(f"{what} has layout {found}, expected {subjects.SCHEMA}; run `tilewright admin init`")


class Connection:
    """A connection that reconnects for ever, until it is closed or the server refuses it for good."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.client = _Client(demands_tls=_dial.demands_tls(settings))
        self.js: JetStreamContext = self.client.jetstream(timeout=ATTEMPT)
        self.reconnects = 0
        self._closing = False
        self._last_error: Exception | None = None
        self._last_error_at = 0.0
        self._listeners: set[Callable[[], None]] = set()
        loop = asyncio.get_running_loop()
        self._refused: asyncio.Future[Exception] = loop.create_future()

    @classmethod
    async def open(cls, settings: BusSettings) -> Connection:
        """Connect within ``settings.connect_timeout``; `NoConnection` says why not, `InvalidInput` which setting is wrong."""
        self = cls(settings)
        options = _dial.options(settings)
        connecting = asyncio.create_task(
            self.client.connect(error_cb=self._failed, reconnected_cb=self._reconnected, closed_cb=self._closed, **options)
        )
        either: set[asyncio.Future[Any]] = {connecting, self._refused}
        try:
            await asyncio.wait(either, timeout=settings.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and not connecting.exception():
                return self
        except asyncio.CancelledError:
            await self._abandon(connecting)
            raise
        error = connecting.exception() if connecting.done() else self._last_error
        if self._refused.done():  # what follows a refusal, a reset perhaps, explains nothing
            error = self._refused.result()
        await self._abandon(connecting)
        if isinstance(error, ImportError):
            raise NoConnection(f"nkeys and .creds files need another package: pip install 'nats-py[nkeys]' ({error})") from error
        raise _dial.explain(settings, error) from error

    async def _abandon(self, connecting: asyncio.Task[None]) -> None:
        self._closing = True
        connecting.cancel()
        await asyncio.wait({connecting})
        await self._close_client()

    async def _failed(self, error: Exception) -> None:
        self._last_error, self._last_error_at = error, asyncio.get_running_loop().time()
        log.debug("NATS: %s: %s", type(error).__name__, error)
        if _dial.is_final(error) and not self._refused.done():
            self._refused.set_result(error)

    async def _reconnected(self) -> None:
        self.reconnects += 1
        self._notify()

    async def _closed(self) -> None:
        self._notify()

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def subscribe_changes(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each reconnect and when the connection closes; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    @property
    def usable(self) -> bool:
        """True while messages can be sent now."""
        return bool(self.client.is_connected)

    def check_open(self) -> None:
        """Raise `NoConnection` once the connection is closed for good."""
        if self.client.is_closed:
            if self._closing:
                raise NoConnection("the bus is closed")
            raise _dial.explain(self.settings, self.client.last_error or self._last_error)

    async def wait_usable(self, timeout: float | None = None) -> bool:
        """Wait until connected; False after `timeout` seconds. Raises `NoConnection` once closed for good."""
        changed = asyncio.Event()
        forget = self.subscribe_changes(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not self.usable:
                    self.check_open()
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return False
        finally:
            forget()
        return True

    async def subscribe(self, subject: str, heard: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Core subscription; `NoConnection` once the connection is closed."""
        try:
            return await self.client.subscribe(subject, cb=heard)
        except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
            self.check_open()
            raise NoConnection("the bus is being closed") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; what has arrived by then is still heard."""
        end = subscription.drain if self.usable else subscription.unsubscribe
        try:
            async with asyncio.timeout(UNSUBSCRIBING):
                await cast("Callable[[], Awaitable[None]]", end)()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("unsubscribing: %s: %s", type(error).__name__, error)

    async def send(self, subject: str, data: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None) -> bool:
        """Core publish: not confirmed, buffered for a while when the connection is lost; False when it was dropped."""
        try:
            await self.client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.Error as error:
            log.debug("%s: dropped: %s: %s", subject, type(error).__name__, error)
            return False
        return True

    async def until_change(self, work: Awaitable[T]) -> T:
        """The result of `work`, or `Interrupted` as soon as the connection was lost and is back."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        changed = asyncio.get_running_loop().create_future()
        forget = self.subscribe_changes(lambda: None if changed.done() else changed.set_result(None))
        try:
            await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Interrupted
        finally:
            forget()
            task.cancel()

    async def ask(
        self, what: str, attempt: Callable[[float], Awaitable[T]], *, patience: float = PATIENCE, absent: NoConnection | None = None
    ) -> T:
        """Run ``attempt(timeout)`` until it answers: again after a reconnect and after a timeout.

        The attempt must be safe to repeat (a message id, a read). Raises `NoConnection` after `patience` seconds and
        `absent` (that `what` is not bootstrapped) when nobody is there to answer on a live connection.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        absent_since = 0.0
        while (left := deadline - loop.time()) > 0:
            if not await self.wait_usable(left):
                break
            try:
                return await self.until_change(attempt(min(ATTEMPT, max(0.05, deadline - loop.time()))))
            except Interrupted:
                absent_since = 0.0
            except _ABSENT as error:
                code = getattr(error, "err_code", None)
                if code in _DISABLED:
                    raise self._without_jetstream() from error
                if code not in (None, _UNAVAILABLE):
                    raise
                absent_since = absent_since or loop.time()
                if loop.time() - absent_since > (ELECTING if self.client.is_clustered else SETTLING):
                    raise absent or not_bootstrapped(what) from error
                await asyncio.sleep(0.1)
            except _TRANSIENT as error:
                log.debug("%s: %s, asking again", what, type(error).__name__)
                await asyncio.sleep(0.05)
            except nats.errors.ConnectionClosedError:
                self.check_open()
        trouble = f" ({self._last_error})" if self._last_error and self._last_error_at > deadline - patience else ""
        raise NoConnection(f"{what}: NATS at {_dial.public_url(self.settings)} did not answer for {patience:g} s{trouble}")

    def _without_jetstream(self) -> NoConnection:
        return NoConnection(f"NATS at {_dial.public_url(self.settings)}: JetStream does not answer; is it enabled there?")

    async def api(self, call: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """A JetStream API call (``$JS.API.<call>``); raises nats-py's ``APIError``s."""
        body = json.dumps(request).encode() if request else b""

        async def attempt(timeout: float) -> Any:
            reply = await self.client.request(f"$JS.API.{call}", body, timeout=timeout)
            answer = json.loads(reply.data)
            if "error" in answer:
                raise nats.js.errors.APIError.from_error(answer["error"])
            return answer

        found: dict[str, Any] = await self.ask(call, attempt, absent=self._without_jetstream())
        return found

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        """Subjects under which a stream holds messages now, with their number; `NotBootstrapped` without the stream."""
        found: dict[str, int] = {}
        while True:
            try:
                info = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": len(found)})
            except nats.js.errors.NotFoundError as error:
                raise not_bootstrapped(f"stream {stream}") from error
            page = info["state"].get("subjects") or {}
            found.update(page)
            if not page or len(found) >= info.get("total", 0):
                return found

    async def close(self) -> None:
        """Drain and close within `CLOSING` seconds."""
        self._closing = True
        if self.client.is_closed:
            return
        try:
            async with asyncio.timeout(CLOSING):
                if self.usable:
                    await self.client.flush(timeout=1)  # a peer that does not answer this is not worth draining for
                    await self.client.drain()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.debug("draining: %s: %s", type(error).__name__, error)
        await self._close_client()

    async def _close_client(self) -> None:
        if not self.client.has_started:
            return
        if not self.usable:
            self.client.forget_unsent()
        try:
            async with asyncio.timeout(CLOSING):
                await self.client.close()
        except (TimeoutError, OSError) as error:
            log.debug("closing: %s: %s", type(error).__name__, error)
        except asyncio.CancelledError:
            # Closing while reconnecting cancels what both of nats-py's tasks wait for; that is not a request to cancel us.
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
