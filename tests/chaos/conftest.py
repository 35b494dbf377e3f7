"""Fixtures: processes that end whatever happens, and a table for what jobs leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Processes

from proving import rows


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "stderr.log")
    yield processes
    processes.close()


@pytest.fixture
def effects(database: str) -> str:
    """The database's URL, with a table for what jobs leave behind."""
    rows(database, "create table effects (job_id bigint)")
    return database
