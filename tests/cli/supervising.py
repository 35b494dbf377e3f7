"""A supervisor with its workers, as tests see it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proving import rows, until

PGQ = Path(sys.executable).with_name("pgq")
WORKERS = "select pid from pgqueue.workers order by id"


class Supervisor:
    """A running command in a process group of its own, as a shell starts it."""

    def __init__(self, log: Path, arguments: tuple[str, ...]) -> None:
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [PGQ, *arguments],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def told(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event so far; every whole line has to be JSON."""
        lines = self.said.rpartition("\n")[0].splitlines()
        return [facts for facts in map(json.loads, lines) if facts["event"] == event]

    def waits(self, promise: Callable[[], Any]) -> Any:
        try:
            return until(promise)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.said}") from None

    def ends(self) -> int:
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{error}; it said:\n{self.said}") from None


def pids(database: str) -> list[int]:
    return [pid for (pid,) in rows(database, WORKERS)]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A child whose parent was killed waits as a zombie for a busy init.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def ask(url: str, path: str) -> tuple[int, list[str]]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=10)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())["reasons"]
    finally:
        connection.close()
