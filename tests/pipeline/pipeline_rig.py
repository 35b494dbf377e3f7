"""What the tests of the pipeline's runs share: feeds, topics, windows, and a look at the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

from psycopg.rows import dict_row

from pgqueue import PgQueue
from pgqueue.events import Event, subscribe
from pgqueue.pipeline.run_window import run_pipeline_once
from pgqueue.pipeline.topics import add_source, add_topic

HOURS = timedelta(hours=1)
END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOURS
START = END - 8 * HOURS


def rss(entries: Iterable[tuple[str, str, datetime]], site: str = "https://news.example") -> str:
    """A feed of (title, text, published)."""
    items = "".join(
        f"<item><title>{escape(title)}</title><description>{escape(text)}</description>"
        f"<link>{site}/{number}-{crc32(title.encode())}</link>"
        f"<pubDate>{format_datetime(published)}</pubDate></item>"
        for number, (title, text, published) in enumerate(entries)
    )
    return f'<rss version="2.0"><channel><title>Feed</title>{items}</channel></rss>'


@dataclass
class Rig:
    """One topic of one app, and a folder for its feeds."""

    pgq: PgQueue
    folder: Path
    topic_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.topic_id = add_topic(self.pgq, "Topic", keywords=["energy"]).id

    def feed(self, name: str, text: str | bytes) -> int:
        """Write a feed and add it as a source, under its name; returns the source's id."""
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return self.source(path.as_uri(), name)

    def source(self, url: str, name: str = "") -> int:
        topic = str(self.topic_id)
        return add_source(self.pgq, url, topic=topic, name=name, files_under=self.folder).id

    def run(self, start: datetime = START, end: datetime = END, **given: Any) -> dict[str, Any]:
        return run_pipeline_once(
            self.pgq,
            user_id=1,
            topic_id=self.topic_id,
            window_start=start,
            window_end=end,
            **given,
        )

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        with self.pgq.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            cursor.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def one(self, query: str, params: Sequence[Any] | None = None) -> Any:
        (row,) = self.rows(query, params)
        (value,) = row.values()
        return value

    def digest(self, end: datetime = END) -> dict[str, Any]:
        (row,) = self.rows("select body from content.digests where window_end = %s", [end])
        body: dict[str, Any] = row["body"]
        return body


@contextmanager
def recorded() -> Any:
    """The events of this process, in order, while the block runs."""
    events: list[Event] = []
    unsubscribe = subscribe(events.append)
    try:
        yield events
    finally:
        unsubscribe()


@dataclass
class Reply:
    """What the loopback server answers; `headers` as they go out."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Site:
    """A web server on this machine: one reply for all paths but those in `replies`."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.replies: dict[str, Reply] = {}
        self.asked: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append({"path": self.path, **dict(self.headers.items())})
                reply = site.replies.get(self.path, site.reply)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.allow = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.allow}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
