"""Processes of ours, started with the app of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = {"PGQUEUE_HEARTBEAT_INTERVAL": "0.3", "PGQUEUE_HEARTBEAT_TIMEOUT": "2"}


class Processes:
    """Starts our command and Python; `close` ends what still runs."""

    def __init__(self, log: Path) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._log = log

    def pgq(self, url: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return self.python(url, "-m", "pgqueue.cli", *arguments, **environment)

    def python(self, url: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        own = {
            "PGQUEUE_DATABASE_URL": url,
            "PGQUEUE_APP": "chaos_app:pgq",
            "PYTHONPATH": str(HERE),
            **environment,
        }
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=HERE,
            )
        self._started.append(process)
        return process

    @property
    def said(self) -> str:
        """What they all wrote to stderr."""
        return self._log.read_text()

    def close(self) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.communicate()
