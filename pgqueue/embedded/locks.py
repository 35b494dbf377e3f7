"""File locks the kernel frees by itself, however their holder ends.

A lock belongs to the opened file: every process that inherited it holds it, until the last one
has closed it. Two openings of one file in one process exclude each other like two processes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgqueue.errors import EmbeddedFailed

POLL_SECONDS = 0.02


def open_lock(path: Path) -> int:
    """A new file descriptor of the lock file, made when missing; closed on exec, as Python does."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def share(path: Path) -> int:
    """A descriptor that holds the lock together with others; never waits."""
    fd = open_lock(path)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def take_alone(fd: int) -> bool:
    """Whether the descriptor now holds the lock alone; if not, it may hold nothing any more."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock."""
    fd = open_lock(path)
    try:
        return not take_alone(fd)
    finally:
        os.close(fd)


def wait_until_free(path: Path, seconds: float) -> bool:
    """Whether the lock became free within `seconds`."""
    deadline = time.monotonic() + seconds
    while is_held(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@contextmanager
def exclusive(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock alone; raises EmbeddedFailed when others hold it for longer than `seconds`."""
    fd = open_lock(path)
    try:
        deadline = time.monotonic() + seconds
        while not take_alone(fd):
            if time.monotonic() > deadline:
                raise EmbeddedFailed(
                    f"another process has been starting or stopping the embedded Postgres "
                    f"for {seconds:g} s: see who holds {path} (`fuser {path}`)"
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(fd)
