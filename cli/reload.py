"""pgq worker --reload: the same command as a child, started again when code changes."""

from __future__ import annotations

import sys

from pgqueue.errors import ExtraMissing

GRACE = 35
"""Seconds the child gets to hand back its jobs: the shutdown timeout and a little."""


def run_reloading() -> None:
    """Watch the current folder's Python files; returns when told to stop."""
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError:
        raise ExtraMissing("--reload", "reload") from None
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    command = " ".join(_quoted(part) for part in [sys.executable, "-m", "pgqueue.cli", *arguments])
    run_process(
        ".",
        target=command,
        target_type="command",
        watch_filter=PythonFilter(),
        sigint_timeout=GRACE,
        sigkill_timeout=1,
    )


def _quoted(part: str) -> str:
    import shlex

    return shlex.quote(part)
