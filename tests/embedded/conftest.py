"""One directory, made once, for all these tests; and other processes that use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from pgqueue import embedded
from pgqueue.embedded import locks
from pgqueue.embedded.places import Place

FAST = {"fsync": "off"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

MEMBER = """
import sys
from pathlib import Path
from pgqueue import embedded
sys.stdin.readline()
server = embedded.start(Path(sys.argv[1]), _settings={"fsync": "off"})
print(server.pid, flush=True)
sys.stdin.readline()
"""


class Member:
    """Another process that joins when told to and leaves, by its end alone, when told to."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-c", MEMBER, str(directory)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def begin_joining(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("join\n")
        self.process.stdin.flush()

    def joined(self) -> int:
        """The pid of the server it sees."""
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def join(self) -> int:
        self.begin_joining()
        return self.joined()

    def leave(self) -> None:
        self.process.communicate("leave\n")
        assert self.process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()


def runs(directory: Path) -> bool:
    """Whether any process of the directory's server lives."""
    return locks.is_held(Place(directory).server_lock)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path that the server's user reaches, when we are root."""
    made = Path(tempfile.mkdtemp(prefix="pgqe-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    for lock in made.rglob("server.lock"):
        embedded.stop(lock.parent, "immediate")
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def made_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pgqe-", dir="/tmp"))
    embedded.start(directory, _settings=FAST).close()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def directory(made_directory: Path) -> Iterator[Path]:
    """A directory whose server was stopped in good order; stopped again afterwards."""
    yield made_directory
    embedded.stop(made_directory, "immediate")
