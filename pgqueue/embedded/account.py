"""Who owns the embedded Postgres, and which system user its processes run as."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgqueue.errors import EmbeddedFailed

# `postgres` first: the account that exists to run Postgres, used by nobody but its administrators.
# `nobody` is shared by whatever drops its rights on this machine, so it is the last resort.
SERVER_USERS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """`owner` may connect; the server runs as `name` (`uid`, `gid`): the same, unless root."""

    owner: str
    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether the server runs as somebody else: we are root, which Postgres refuses."""
        return self.uid != os.geteuid()

    def popen_options(self) -> dict[str, Any]:
        """What subprocess needs to run as the server's user, apart from our terminal.

        A session of its own: Ctrl-C must reach the workers, not the server under them. Nothing of
        our environment goes along: it may hold secrets, and PG* variables would steer Postgres.
        """
        options: dict[str, Any] = {
            "start_new_session": True,
            "cwd": "/",
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
        }
        if self.is_other:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def can_enter(self, folder: Path) -> bool:
        """Whether the server's user reaches the folder; asked of the kernel, which knows ACLs."""
        command = ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]
        options = self.popen_options() | {"stderr": subprocess.DEVNULL}
        return subprocess.run(command, check=False, **options).returncode == 0  # noqa: S603 - fixed


def account_for(data: Path) -> Account:
    """The account of the server whose data folder is `data` (which need not exist).

    Raises EmbeddedFailed when a user id has no name (Postgres cannot do without), or when we are
    root and there is no other user to run the server.
    """
    me = _named(os.geteuid())
    if me.pw_uid != 0:
        return Account(me.pw_name, me.pw_name, me.pw_uid, me.pw_gid)
    server = _owner(data) or _first_known(SERVER_USERS)
    return Account(me.pw_name, server.pw_name, server.pw_uid, server.pw_gid)


def _named(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedFailed(
            f"user id {uid} has no name on this system, and Postgres needs one: add it to "
            "/etc/passwd, or set PGQUEUE_DATABASE_URL to use another Postgres"
        ) from None


def _owner(data: Path) -> pwd.struct_passwd | None:
    if not data.exists() or data.stat().st_uid == 0:
        return None
    return _named(data.stat().st_uid)


def _first_known(names: tuple[str, ...]) -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in names:
        if name in known and known[name].pw_uid != 0:
            return known[name]
    raise EmbeddedFailed(
        "Postgres refuses to run as root, and this system has none of the users "
        f"{', '.join(names)}: add one, run pgqueue as an ordinary user, or set PGQUEUE_DATABASE_URL"
    )
