"""Reads sources side by side: fetched, parsed and turned into items, with no database in sight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from pgqueue.pipeline.feeds import FeedError, parse
from pgqueue.pipeline.fetch import Fetched, FetchError, fetch
from pgqueue.pipeline.guard import Allowed
from pgqueue.pipeline.items import NewItem, items_of

THREADS = 8
LANES_PER_HOST = 2


@dataclass(frozen=True, slots=True)
class PolledSource:
    """A source as `list_polled_sources` gives it."""

    id: int
    name: str
    url: str
    canonical_url: str
    file_root: str | None
    etag: str | None
    last_modified: str | None
    moved_to: str | None
    moved_count: int
    failures: int
    due: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source gave: an answer with its items, or the error in one line.

    A body that is no feed has both an answer and an error, and no items.
    """

    source: PolledSource
    answer: Fetched | None = None
    items: Sequence[NewItem] = ()
    error: str | None = None
    retry_after: float | None = None
    gone: bool = False


def read_all(
    sources: Sequence[PolledSource],
    *,
    allow: Allowed,
    first_seen_at: datetime,
    cancelled: Callable[[], bool],
) -> Iterator[Reading]:
    """Yield what each source gave, in the order of `sources`, as soon as it is there.

    At most 8 at once and 2 of one host. When `cancelled`, sources not begun are left out.
    """
    futures: dict[int, Future[Reading | None]] = {source.id: Future() for source in sources}

    def work(lane: Sequence[PolledSource]) -> None:
        for source in lane:
            reading = None if cancelled() else _read(source, allow, first_seen_at)
            futures[source.id].set_result(reading)

    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pgqueue-fetch")
    try:
        for lane in _lanes(sources):
            pool.submit(work, lane)
        for source in sources:
            reading = futures[source.id].result()
            if reading is not None:
                yield reading
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _lanes(sources: Sequence[PolledSource]) -> Iterator[Sequence[PolledSource]]:
    """Sources that are read one after another: two lanes per host, one source in each for files."""
    hosts: dict[str, list[PolledSource]] = defaultdict(list)
    for source in sources:
        host = urlsplit(source.url).hostname if source.file_root is None else f"file {source.id}"
        hosts[host or ""].append(source)
    for of_host in hosts.values():
        for first in range(LANES_PER_HOST):
            if lane := of_host[first::LANES_PER_HOST]:
                yield lane


def _read(source: PolledSource, allow: Allowed, first_seen_at: datetime) -> Reading:
    """Never raises: one bad source must not stop the others."""
    try:
        answer = fetch(
            source.url,
            etag=source.etag,
            last_modified=source.last_modified,
            allow=allow,
            files_under=(Path(source.file_root),) if source.file_root is not None else (),
        )
    except FetchError as error:
        return Reading(source, error=error.reason, retry_after=error.retry_after, gone=error.gone)
    except Exception as error:  # noqa: BLE001 - strangers' answers; recorded on the source's row
        return Reading(source, error=f"fetching failed: {type(error).__name__}: {error}"[:200])
    if answer.not_modified:
        return Reading(source, answer, retry_after=answer.retry_after)
    return _parsed(source, answer, first_seen_at)


def _parsed(source: PolledSource, answer: Fetched, first_seen_at: datetime) -> Reading:
    try:
        feed = parse(answer.body, url=answer.url, content_type=answer.content_type)
        items = items_of(feed.entries, source_url=source.canonical_url, first_seen_at=first_seen_at)
    except FeedError as error:
        return Reading(source, error=error.reason, retry_after=answer.retry_after)
    except Exception as error:  # noqa: BLE001 - as above
        return Reading(source, error=f"reading failed: {type(error).__name__}: {error}"[:200])
    return Reading(source, answer, items, retry_after=answer.retry_after)
