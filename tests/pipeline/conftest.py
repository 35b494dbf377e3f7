"""Fixtures for the tests that run the pipeline on a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_rig import Rig, Site

from pgqueue import PgQueue
from pgqueue.pipeline.tasks import add_tasks


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on this machine that the fetcher may contact."""
    server = Site()
    yield server
    server.close()


@pytest.fixture
def rig(database: str, tmp_path: Path) -> Iterator[Rig]:
    """A topic on a fresh database, and a folder for its feeds."""
    app = PgQueue(database)
    add_tasks(app)
    yield Rig(app, tmp_path)
    app.close()


@pytest.fixture
def web_rig(
    database: str, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    """`rig`, whose fetcher may contact `site`."""
    monkeypatch.setenv("PGQUEUE_FETCH_ALLOW", site.allow)
    app = PgQueue(database)
    add_tasks(app)
    yield Rig(app, tmp_path)
    app.close()
