"""Making, starting and stopping the server of one place.

Everything here that changes something expects its caller to hold the place's start lock.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

import psycopg

from pgqueue.embedded import locks
from pgqueue.embedded.account import Account
from pgqueue.embedded.places import PORT, Place, make_private, prepare_sockets
from pgqueue.embedded.wheel import Binaries
from pgqueue.errors import EmbeddedFailed

Mode = Literal["fast", "immediate"]

ROLE = DATABASE = "pgqueue"
# Crash recovery after a power loss may have to replay a whole checkpoint interval.
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
TOOL_SECONDS = 120.0
LOG_BYTES = 10_000_000
LOG_LINES = 12

# Written into a new data folder, so that its owner can change them with ALTER SYSTEM.
SETTINGS = {
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "64MB",
    "jit": "off",
}


@dataclass(frozen=True)
class Cluster:
    """The server of one place: its files, its programs, and the user it runs as."""

    place: Place
    account: Account
    binaries: Binaries

    @property
    def url(self) -> str:
        """What psycopg, SQLAlchemy and psql connect to."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        # The port is named although it is the default: PGPORT would be taken otherwise.
        host = quote(str(self.place.sockets), safe="")
        return f"postgresql://{ROLE}@/{database}?host={host}&port={PORT}"

    def ensure_running(self, settings: Mapping[str, str]) -> None:
        """Return when the server takes connections; start it, and make it, as needed.

        `settings` are for a server started here. Raises EmbeddedFailed with what the log says last.
        """
        if self._refusal(DATABASE) is None:
            return
        if locks.is_held(self.place.server_lock):
            self._end_orphans()
            # It starts, recovers or stops; only its own processes know for how long.
            self._wait_until_ready(self._log_size())
        if not locks.is_held(self.place.server_lock):
            self._start(settings)
        self._ensure_database()

    def halt(self, mode: Mode) -> None:
        """Stop the server, if it runs, and wait until its last process is gone."""
        if not locks.is_held(self.place.server_lock):
            return
        seconds = str(int(STOP_SECONDS))
        command = ["pg_ctl", "stop", "-s", "-w", "-t", seconds, "-m", mode, "-D", self._data]
        answer = self._run_as_server(command)
        if not locks.wait_until_free(self.place.server_lock, STOP_SECONDS):
            raise EmbeddedFailed(
                f"the embedded Postgres in {self.place.directory} did not stop within "
                f"{STOP_SECONDS:g} s: {answer.stderr.strip()}"
            )
        if self.place.sockets.parent != self.place.directory:
            with suppress(OSError):  # not empty: not only ours any more
                self.place.sockets.rmdir()

    @property
    def _data(self) -> str:
        return str(self.place.data)

    def _start(self, settings: Mapping[str, str]) -> None:
        if not self.place.data.exists():
            self._make_data(["--no-sync"] if settings.get("fsync") == "off" else [])
        prepare_sockets(self.place, self.account)
        self._clear_leftovers()
        self._write_access_rules()
        already_said = self._launch(settings)
        if not self._wait_until_ready(already_said):
            raise EmbeddedFailed(
                f"the embedded Postgres in {self.place.directory} did not start; its log "
                f"({self.place.log}) ends with:\n{self._log_tail(already_said)}"
            )

    def _make_data(self, extra: list[str]) -> None:
        """Run initdb beside the data folder, then rename: a half-made one never counts as data."""
        for left in self.place.directory.glob("data.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = self.place.directory / f"data.new-{secrets.token_hex(4)}"
        make_private(draft, self.account)
        answer = self._run_as_server(["initdb", *self._initdb_options(), *extra, "-D", str(draft)])
        if answer.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedFailed(
                f"initdb could not make {self.place.data}: {answer.stderr.strip()}"
            )
        draft.rename(self.place.data)
        _sync(self.place.directory)

    def _initdb_options(self) -> list[str]:
        # Outside Linux the C library need not know C.UTF-8.
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        options = ["-U", ROLE, "--encoding=UTF8", f"--locale={locale}"]
        if self.binaries.major >= 17:  # noqa: PLR2004 - the release that brought its own collations
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # For a server somebody starts by hand; ours reads its own rules.
        options += ["--auth-local=peer", "--auth-host=reject"]
        return options + [word for pair in SETTINGS.items() for word in ("-c", "=".join(pair))]

    def _clear_leftovers(self) -> None:
        """Remove what a killed server or a power loss left; the server lock says that none lives.

        Left alone, a stale pid that now belongs to another process of this user (or to an unreaped
        child, in a container) would keep Postgres from starting.
        """
        pid_file = self.place.data / "postmaster.pid"
        pid = postmaster_pid(self.place.data)
        if pid is not None and _works_in(pid, self.place.data):
            raise EmbeddedFailed(
                f"another Postgres (pid {pid}) uses {self.place.data} and was not started by "
                f"pgqueue: stop it with `pg_ctl stop -D {self.place.data}`"
            )
        for path in (pid_file, self.place.socket, Path(f"{self.place.socket}.lock")):
            path.unlink(missing_ok=True)

    def _end_orphans(self) -> None:
        """End what a killed server left at work: a busy query would go on to its end."""
        data = self.place.data
        first = postmaster_pid(data)
        if first is not None and _works_in(first, data):
            return
        for entry in Path("/proc").glob("[0-9]*"):
            if _works_in(int(entry.name), data):
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGTERM)

    def _write_access_rules(self) -> None:
        mode = 0o644 if self.account.is_other else 0o600
        # The owner may be any role: a superuser may anyway, and it lets roles be tried out.
        owner = self.account.owner.replace('"', '""')
        rules = {
            self.place.hba: "local all all peer map=pgqueue\n",
            self.place.ident: f'pgqueue "{owner}" all\n',
        }
        for path, text in rules.items():
            path.write_text(text)
            path.chmod(mode)

    def _launch(self, settings: Mapping[str, str]) -> int:
        """Start the server in the background; returns how long its log was before."""
        if self._log_size() > LOG_BYTES:
            self.place.log.replace(self.place.log.with_suffix(".log.1"))
        before = self._log_size()
        options = [word for pair in self._forced(settings) for word in ("-c", "=".join(pair))]
        command = [str(self.binaries.bin / "postgres"), "-D", self._data, *options]
        lock = locks.open_lock(self.place.server_lock)
        try:
            if not locks.take_alone(lock):
                raise EmbeddedFailed(f"{self.place.directory} is in use by another Postgres")
            with _private_log(self.place.log) as log:
                # A shell in between makes it nobody's child, so that nobody has to reap it; `pg_ctl
                # start` would do that too, but it lets the shell expand $ and " in the path.
                # The server's processes inherit the lock, and nothing else.
                self._run_as_server(
                    ["/bin/sh", "-c", '"$@" &', "sh", *command],
                    pass_fds=(lock,),
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.close(lock)
        return before

    def _forced(self, settings: Mapping[str, str]) -> list[tuple[str, str]]:
        """On the command line, where ALTER SYSTEM cannot reach them."""
        return [
            *settings.items(),
            ("listen_addresses", ""),
            ("port", str(PORT)),
            ("unix_socket_directories", str(self.place.sockets)),
            ("unix_socket_permissions", "0700"),
            ("hba_file", str(self.place.hba)),
            ("ident_file", str(self.place.ident)),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
        ]

    def _wait_until_ready(self, already_said: int) -> bool:
        """Whether the server took a connection; False when it has ended instead."""
        deadline = time.monotonic() + READY_SECONDS
        while (refusal := self._refusal("postgres")) is not None:
            if not locks.is_held(self.place.server_lock):
                return False
            if time.monotonic() > deadline:
                raise EmbeddedFailed(
                    f"the embedded Postgres in {self.place.directory} takes no connections after "
                    f"{READY_SECONDS:g} s ({refusal}); its log ({self.place.log}) ends with:\n"
                    f"{self._log_tail(already_said)}"
                )
            time.sleep(locks.POLL_SECONDS)
        return True

    def _refusal(self, database: str) -> str | None:
        """Why a connection was refused; None when there was one."""
        if not self.place.socket.exists():
            return "there is no socket yet"
        try:
            psycopg.connect(self._url(database), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            return str(error)
        return None

    def _ensure_database(self) -> None:
        if self._refusal(DATABASE) is None:
            return
        answer = self.run("createdb", "--maintenance-db=postgres", DATABASE)
        if answer.returncode != 0:
            raise EmbeddedFailed(f"database {DATABASE!r} was not made: {answer.stderr.strip()}")

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of Postgres' client programs on the server, as ourselves: we may connect."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        here = {
            "PGHOST": str(self.place.sockets),
            "PGPORT": str(PORT),
            "PGUSER": ROLE,
            "PGDATABASE": DATABASE,
            "PGCLIENTENCODING": "UTF8",
        }
        command = [str(self.binaries.bin / tool), *arguments]
        return subprocess.run(  # noqa: S603 - a program of the wheel, no shell
            command, env=kept | here, capture_output=True, encoding="utf-8", check=False
        )

    def _run_as_server(
        self,
        command: list[str],
        *,
        pass_fds: tuple[int, ...] = (),
        stdout: object = subprocess.PIPE,
        stderr: object = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        program = str(self.binaries.bin / command[0])  # an absolute path stays what it is
        options = self.account.popen_options()
        options |= {"pass_fds": pass_fds, "stdout": stdout, "stderr": stderr}
        options |= {"timeout": TOOL_SECONDS, "encoding": "utf-8", "errors": "replace"}
        return subprocess.run([program, *command[1:]], check=False, **options)  # noqa: S603 - ours

    def _log_size(self) -> int:
        return self.place.log.stat().st_size if self.place.log.exists() else 0

    def _log_tail(self, already_said: int) -> str:
        with self.place.log.open("rb") as log:
            log.seek(already_said)
            lines = log.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-LOG_LINES:]) or "(it said nothing)"


def data_version(data: Path) -> int | None:
    """The major version of Postgres that made the data; None when there are none yet.

    Raises EmbeddedFailed for a folder that is none of Postgres': we only ever rename whole ones.
    """
    if not data.exists():
        return None
    try:
        return int((data / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError):
        raise EmbeddedFailed(
            f"{data} is not a data folder of Postgres any more (PG_VERSION is missing): restore it "
            "from a backup, or remove it to begin with an empty database"
        ) from None


def postmaster_pid(data: Path) -> int | None:
    """The process id that the server in `data` wrote down last; None without one."""
    with suppress(FileNotFoundError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    return None


def _works_in(pid: int, data: Path) -> bool:
    """Whether the process is a Postgres of this folder: its current folder is the data."""
    try:
        return (Path("/proc") / str(pid) / "cwd").readlink() == data
    except OSError:
        # Gone, unreaped, another user's, or no /proc: not a Postgres we could collide with.
        return False


def _private_log(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "ab")


def _sync(folder: Path) -> None:
    """Make a rename inside the folder survive a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
