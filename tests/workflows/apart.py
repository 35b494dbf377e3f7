"""A handler that runs in a child process; the child finds it here by module and name."""

from __future__ import annotations

import os

from pgqueue import Parents


def total_apart(parents: Parents[int]) -> list[int]:
    return [sum(parents.values()), os.getpid()]
