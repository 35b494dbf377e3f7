"""Sharing the server: who joins is counted by the kernel, and who leaves last turns it off."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pgqueue.embedded import locks
from pgqueue.embedded.account import account_for
from pgqueue.embedded.cluster import READY_SECONDS, Cluster, Mode, data_version, postmaster_pid
from pgqueue.embedded.places import Place, default_directory, prepare_directory
from pgqueue.embedded.wheel import copy_binaries, find_binaries
from pgqueue.errors import EmbeddedFailed

# One start may wait its full time before the next one gets its turn.
TURN_SECONDS = 2 * READY_SECONDS


class _Membership:
    """This process' share in one server, however many handles it has."""

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.settings = settings
        self.handles = 0
        self.share: int | None = locks.share(cluster.place.members_lock)
        self.childs_share: int | None = None

    def leave(self) -> None:
        """Give the share back; stop the server when nobody else holds one."""
        # A removed directory: a server without its files ends by itself.
        if self.share is None or not self.cluster.place.start_lock.exists():
            self.drop()
            return
        with _turn(self.cluster.place):
            self.halt_if_last()

    def halt_if_last(self) -> None:
        """Give the share back within our turn; stop the server when nobody else holds one."""
        try:
            if self.share is not None and locks.take_alone(self.share):
                self.cluster.halt("fast")
        finally:
            self.drop()

    def drop(self) -> None:
        """Give the share back without looking whether it was the last."""
        if self.share is not None:
            os.close(self.share)
        self.share = None

    def split(self) -> None:
        """Take a second share before a fork, so that there is no moment without one."""
        with suppress(OSError):  # the directory is gone: the child is no member
            self.childs_share = locks.share(self.cluster.place.members_lock)

    def keep_own(self) -> None:
        """In the parent after a fork: leave the second share to the child."""
        if self.childs_share is not None:
            os.close(self.childs_share)
        self.childs_share = None

    def keep_childs(self) -> None:
        """In the child after a fork: closing the parent's share here does not give it back."""
        self.drop()
        self.share, self.childs_share = self.childs_share, None


# By resolved directory. Reentrant, because the thread that forks takes it once more.
_memberships: dict[Path, _Membership] = {}
_guard = threading.RLock()


class EmbeddedServer:
    """A handle on the running private Postgres; `start` makes it."""

    def __init__(self, membership: _Membership) -> None:
        self._membership = membership
        self._cluster = membership.cluster
        self._open = True

    @property
    def url(self) -> str:
        """The libpq URL of the database `pgqueue`, over a Unix socket."""
        return self._cluster.url

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return self._cluster.place.directory

    @property
    def bin_dir(self) -> Path:
        """The folder of `psql`, `pg_dump` and the others."""
        return self._cluster.binaries.bin

    @property
    def pid(self) -> int | None:
        """The process id of the server; None while it is stopped."""
        return postmaster_pid(self._cluster.place.data)

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a client program such as `pg_dump` on the server; returns what it wrote.

        Raises EmbeddedFailed with its words when it fails.
        """
        answer = self._cluster.run(tool, *arguments)
        if answer.returncode != 0:
            raise EmbeddedFailed(f"{tool} failed ({answer.returncode}): {answer.stderr.strip()}")
        return answer

    def ensure_running(self) -> None:
        """Start the server again if it is gone; raises EmbeddedFailed when it cannot be."""
        place = self._cluster.place
        with _explained(place), _turn(place):
            self._cluster.ensure_running(self._membership.settings)

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server under everybody who uses it; `ensure_running` brings it back."""
        place = self._cluster.place
        with _explained(place), _turn(place):
            self._cluster.halt(mode)

    def restart(self, mode: Mode = "fast") -> None:
        """Stop and start the server under everybody who uses it."""
        place = self._cluster.place
        with _explained(place), _turn(place):
            self._cluster.halt(mode)
            self._cluster.ensure_running(self._membership.settings)

    def close(self) -> None:
        """Leave; the last one of the last process stops the server. A second call does nothing."""
        with _guard:
            if not self._open:
                return
            self._open = False
            self._membership.handles -= 1
            if self._membership.handles == 0:
                _memberships.pop(self.directory, None)
                self._membership.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start(
    directory: Path | None = None, *, _settings: Mapping[str, str] | None = None
) -> EmbeddedServer:
    """Join the running server of `directory`, or start it; returns a handle to close.

    Raises ExtraMissing without the wheel, EmbeddedFailed with the cause when it does not start.
    """
    place = _place(directory)
    with _guard, _explained(place):
        membership = _memberships.get(place.directory)
        if membership is None:
            membership = _join(place, _settings or {})
            _memberships[place.directory] = membership
        else:
            with _turn(place):
                membership.cluster.ensure_running(membership.settings)
        membership.handles += 1
        return EmbeddedServer(membership)


def stop(directory: Path | None = None, mode: Mode = "fast") -> None:
    """Stop the server of `directory` under everybody who uses it, without joining it."""
    place = _place(directory)
    if place.start_lock.exists():
        with _explained(place), _turn(place):
            _cluster(place).halt(mode)


def _place(directory: Path | None) -> Place:
    return Place((directory or default_directory()).expanduser().resolve())


def _cluster(place: Place) -> Cluster:
    account = account_for(place.data)
    binaries = find_binaries(data_version(place.data))
    if account.is_other:
        binaries = copy_binaries(binaries)
        if not account.can_enter(binaries.bin):
            raise EmbeddedFailed(
                f"the system user {account.name!r}, who runs Postgres for root, cannot reach "
                f"{binaries.bin}: open its folders with chmod o+x"
            )
    return Cluster(place, account, binaries)


def _join(place: Place, settings: Mapping[str, str]) -> _Membership:
    prepare_directory(place, account_for(place.data))
    with _turn(place):
        # Within the turn: a process that is just leaving has its share alone until then.
        membership = _Membership(_cluster(place), settings)
        try:
            membership.cluster.ensure_running(settings)
        except Exception:
            membership.drop()
            raise
        except BaseException:  # Ctrl-C: nobody would ever stop what was just begun
            membership.halt_if_last()
            raise
    return membership


@contextmanager
def _turn(place: Place) -> Iterator[None]:
    """Be the only one who starts or stops the server."""
    with locks.exclusive(place.start_lock, TURN_SECONDS):
        yield


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Turn what the system refuses into one clear line."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedFailed(
            f"the embedded Postgres in {place.directory} cannot be used: {error}. Name another "
            "folder in PGQUEUE_EMBEDDED_DIR, or set PGQUEUE_DATABASE_URL to use another Postgres"
        ) from error


def _leave_all() -> None:
    """Leave every server; one that fails does not keep us in the others."""
    with _guard, ExitStack() as leaving:
        for membership in _memberships.values():
            leaving.callback(membership.leave)
        _memberships.clear()


def _before_fork() -> None:
    _guard.acquire()
    for membership in _memberships.values():
        membership.split()


def _after_fork_in_parent() -> None:
    for membership in _memberships.values():
        membership.keep_own()
    _guard.release()


def _after_fork_in_child() -> None:
    for membership in _memberships.values():
        membership.keep_childs()
    _guard.release()
    # Children of multiprocessing end without atexit; they run its own finalizers instead, which
    # it forgets on its way into the child and lets be registered anew by this hook.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _memberships:
        util.register_after_fork(_leave_all, _leave_when_process_ends)


def _leave_when_process_ends(leave: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, leave, exitpriority=0)


atexit.register(_leave_all)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
