"""pgq worker --reload: the same command as a child, started again when code changes."""

from __future__ import annotations

import os
import shlex
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
    command = shlex.join([sys.executable, "-m", f"{__package__}.reload", *arguments])
    run_process(
        ".",
        target=command,
        target_type="command",
        watch_filter=PythonFilter(),
        sigint_timeout=GRACE,
        sigkill_timeout=1,
    )


def run_apart() -> None:
    """The child: `pgq` in a process group of its own.

    Ctrl-C of a terminal goes to the whole group; the watcher passes it on, and a second one would
    end the worker before it has handed back its jobs.
    """
    from .main import main

    os.setpgid(0, 0)
    main()


if __name__ == "__main__":
    run_apart()
