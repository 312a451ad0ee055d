"""``admin auth``: an nkey per role, and what a NATS server is to let each of them do."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tilewright.protocol.errors import InvalidInput, NoConnection
from tilewright.protocol.permissions import ROLES, permissions

from . import console

#: The file that a server's configuration includes.
CONFIGURATION = "auth.conf"
#: Ending of the files that hold a role's seed.
SEED = ".nk"
HEADER = """\
# Users of a NATS server for Tilewright, one per role, each known by its public key. Written by `tilewright admin auth`;
# include it in the server's configuration. It holds no secret: those are the seeds in the {ending} files beside it.
"""


def auth(folder: Path) -> None:
    """Write a seed for each role that has none in `folder`, and the users with their permissions, anew each time."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = {role: _public_key(folder / f"{role}{SEED}") for role in ROLES}
        (folder / CONFIGURATION).write_text(configuration(keys), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"FOLDER {folder}: {error.strerror}, expected a folder that can be written") from error
    console.line(f"{folder / CONFIGURATION}: users {', '.join(ROLES)}; include it in the server's configuration")
    console.line(f"{folder}/ROLE{SEED}: the secret of each role; name it in TILEWRIGHT_NATS_NKEY_SEED where that role runs")


def configuration(keys: dict[str, str]) -> str:
    """The ``authorization`` block of a server's configuration, from role -> public key."""
    lines = [HEADER.format(ending=SEED), "authorization {", "  timeout: 5", "  users: ["]
    for role, key in keys.items():
        may = permissions(role)
        lines += [f"    {{  # {role}", f"      nkey: {key}", "      permissions: {"]
        for verb, subjects in (("publish", may.publish), ("subscribe", may.subscribe)):
            lines += [f"        {verb}: {{ allow: [", *(f"          {json.dumps(subject)}" for subject in subjects), "        ] }"]
        if may.answers:
            lines.append('        allow_responses: { max: 1, expires: "1m" }')
        lines += ["      }", "    }"]
    return "\n".join([*lines, "  ]", "}", ""])


def _public_key(path: Path) -> str:
    """The public key of the seed in a file; the file is made, for its owner only, when there is none."""
    try:
        import nkeys
    except ImportError as error:
        raise NoConnection(f"nkeys need another package: pip install 'tilewright[cluster]' ({error})") from error
    if not path.exists():
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(seed)
    try:
        return bytes(nkeys.from_seed(bytearray(path.read_bytes().strip())).public_key).decode()
    except (nkeys.NkeysError, ValueError) as error:
        raise InvalidInput(f"{path}: it holds no nkey seed of a user; delete it to have a new one made") from error
