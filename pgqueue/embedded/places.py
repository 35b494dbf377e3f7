"""Where the files of an embedded Postgres lie, and that nobody else can meddle with them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pgqueue.embedded.account import Account
from pgqueue.errors import EmbeddedFailed

PORT = 5432
# sun_path of Linux has 108 bytes, the last one a zero; macOS has four less.
SOCKET_PATH_BYTES = 103
# Postgres and libpq read folders of sockets as comma-separated lists.
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
SYSTEM_DIRECTORY = Path("/var/lib/pgqueue/postgres")


@dataclass(frozen=True)
class Place:
    """The files of one embedded Postgres."""

    directory: Path

    @property
    def data(self) -> Path:
        """Postgres' data folder."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "server.log"

    @property
    def hba(self) -> Path:
        """Who may connect; outside the data folder, so that only the owner can change it."""
        return self.directory / "pg_hba.conf"

    @property
    def ident(self) -> Path:
        """Which system user may be which role."""
        return self.directory / "pg_ident.conf"

    @property
    def start_lock(self) -> Path:
        """Held alone by who starts or stops the server."""
        return self.directory / "start.lock"

    @property
    def members_lock(self) -> Path:
        """Shared by every process that uses the server."""
        return self.directory / "members.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server's processes themselves, to the last one: free means none lives."""
        return self.directory / "server.lock"

    @property
    def sockets(self) -> Path:
        """The folder of the socket: the same for all processes, whatever their environment.

        So neither XDG_RUNTIME_DIR (absent under cron, removed at logout) nor TMPDIR takes part.
        """
        inside = self.directory / "run"
        if _fits(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        if os.geteuid() == 0:
            return Path(f"/run/pgq-{digest}")
        return Path(f"/tmp/pgq-{os.geteuid()}-{digest}")  # noqa: S108 - made 0700 and verified

    @property
    def socket(self) -> Path:
        """The socket itself."""
        return self.sockets / f".s.PGSQL.{PORT}"


def _fits(folder: Path) -> bool:
    socket = folder / f".s.PGSQL.{PORT}"
    return len(os.fsencode(socket)) <= SOCKET_PATH_BYTES and bool(_PLAIN.fullmatch(str(folder)))


def default_directory() -> Path:
    """Where the embedded Postgres of this user lies unless told otherwise."""
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    # The desktop's convention for all programs, not a setting of ours.
    base = os.environ.get("XDG_DATA_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return home / "pgqueue" / "postgres"


def prepare_directory(place: Place, account: Account) -> None:
    """Make the directory, or check it: ours, closed to other writers, reached by the server.

    Only folders made here get their permissions set, and an empty one given to us, as initdb does.
    Raises EmbeddedFailed, before anything was made, when the directory will not do.
    """
    directory = place.directory
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    _refuse_unreachable(place, account, (missing or [directory])[-1])
    mode = 0o711 if account.is_other else 0o700
    for folder in reversed(missing):
        _make(folder, mode)
    _refuse_others_directory(directory)
    if not any(directory.iterdir()):
        directory.chmod(mode)
    _refuse_open_or_used(place)


def _make(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode)
    except FileExistsError:
        return
    # The umask may have closed it to the server's user.
    folder.chmod(mode)


def _refuse_unreachable(place: Place, account: Account, first: Path) -> None:
    """`first` is the first folder to be made, or the directory itself when it exists."""
    nearest = first.parent
    if not account.is_other or account.can_enter(nearest):
        return
    raise EmbeddedFailed(
        f"as root, Postgres runs as the system user {account.name!r}, who cannot reach "
        f"{place.directory}: {_closed_to(account, nearest)} is closed to others. Leave "
        f"PGQUEUE_EMBEDDED_DIR empty to use {SYSTEM_DIRECTORY}, name a folder outside, or run "
        "pgqueue as an ordinary user; no permissions were changed"
    )


def _closed_to(account: Account, folder: Path) -> Path:
    for candidate in reversed([folder, *folder.parents]):
        if not account.can_enter(candidate):
            return candidate
    return folder


def _refuse_others_directory(directory: Path) -> None:
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedFailed(f"{directory} is not a folder: name one in PGQUEUE_EMBEDDED_DIR")
    if status.st_uid != os.geteuid():
        raise EmbeddedFailed(
            f"{directory} belongs to user id {status.st_uid}, and an embedded Postgres serves its "
            "owner alone: name a folder of your own in PGQUEUE_EMBEDDED_DIR"
        )


def _refuse_open_or_used(place: Place) -> None:
    directory = place.directory
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedFailed(f"{directory} can be written by others: run `chmod go-w {directory}`")
    # In this order: the lock is the first file to be made, perhaps between the two looks.
    if any(directory.iterdir()) and not place.start_lock.exists():
        raise EmbeddedFailed(
            f"{directory} holds other things than an embedded Postgres: name an empty or a new "
            "folder in PGQUEUE_EMBEDDED_DIR"
        )


def prepare_sockets(place: Place, account: Account) -> None:
    """Make the folder of the socket, or check that it is the server's alone.

    Raises EmbeddedFailed when somebody else made it: in a shared folder anybody can.
    """
    folder = place.sockets
    make_private(folder, account)
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != account.uid:
        raise EmbeddedFailed(
            f"{folder} is not a folder of {account.name!r} alone (0700), so no socket is put into "
            "it: remove it, or name another folder in PGQUEUE_EMBEDDED_DIR"
        )


def make_private(folder: Path, account: Account) -> None:
    """Make a folder of the server's user alone, unless something of that name exists."""
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        return
    if account.is_other:
        os.chown(folder, account.uid, account.gid)
