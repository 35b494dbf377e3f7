"""Fixtures of this room: moved time, recorded events, a worker beside the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from pgqueue import PgQueue
from proving import Clock, Recorder, listening

Working = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def clock(database: str) -> Clock:
    """The time of the test's database, standing still until it is moved."""
    return Clock(database)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with listening() as recorder:
        yield recorder


@pytest.fixture
def working(pgq: PgQueue) -> Working:
    """A worker of `pgq` in this event loop for as long as the block lasts."""

    @asynccontextmanager
    async def working(**options: Any) -> AsyncIterator[Any]:
        options = {"concurrency": 4, "shutdown_timeout": 0.0, "scheduler": False} | options
        worker = pgq.worker(**options)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop("the test is over")
            await running

    return working
