"""Fetching an address that somebody else wrote down: safely, politely, within a deadline."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urldefrag, urlsplit
from urllib.request import url2pathname

import httpcore2
import httpx2

from pgqueue.errors import PgQueueError
from pgqueue.pipeline.guard import (
    Allowed,
    Deadline,
    GuardedBackend,
    GuardedTransport,
    Unreachable,
    parse_allow,
)
from pgqueue.pipeline.urls import without_password

__all__ = ["Allowed", "FetchError", "Fetched", "fetch", "parse_allow"]

MAX_REDIRECTS = 5
_PERMANENT = (301, 308)
_NOT_MODIFIED = 304
_GONE = 410
# A server may ask for a week's silence, not for silence for ever.
_MAX_RETRY_AFTER = 7 * 86_400.0
_MAX_REASON = 200


@dataclass(frozen=True)
class Fetched:
    """What a server, or a file, answered.

    `status` is 2xx or 304 (then `body` is empty). `url` is where the answer came from,
    `permanent_url` where 301 and 308 answers say the address now lives. `etag` and
    `last_modified` are kept letter by letter for the next request. `retry_after` in seconds.
    """

    status: int
    url: str
    body: bytes
    permanent_url: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    content_type: str | None = None
    retry_after: float | None = None

    @property
    def not_modified(self) -> bool:
        """Whether the server said that nothing has changed since the last fetch."""
        return self.status == _NOT_MODIFIED


class FetchError(PgQueueError):
    """Nothing was fetched; `reason` is one short line fit to be stored and shown.

    `status` is the HTTP status if one came, `retry_after` the seconds the server asked to wait,
    `gone` whether it said that the address is gone for good (410). `url` holds no password.
    """

    def __init__(
        self,
        url: str,
        reason: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        gone: bool = False,
    ) -> None:
        self.url = without_password(url)
        self.reason = " ".join(reason.split())[:_MAX_REASON]
        self.status = status
        self.retry_after = retry_after
        self.gone = gone
        super().__init__(f"{self.url}: {self.reason}")


def fetch(
    url: str,
    *,
    etag: str | None = None,
    last_modified: str | None = None,
    allow: Allowed = frozenset(),
    files_under: tuple[Path, ...] = (),
    deadline: float = 20.0,
    limit: int = 5_000_000,
) -> Fetched:
    """GET the address; conditional when `etag` or `last_modified` of the last answer is given.

    Only public addresses and the (address, port) pairs of `allow` are contacted; `file:` addresses
    are read only below `files_under`. `deadline` bounds the whole request in seconds, `limit` the
    body in bytes, after decompression. Raises FetchError, and nothing else, for what went wrong.
    """
    with _told(url):
        if url.strip().lower().startswith("file:"):
            return _read_file(url.strip(), etag, files_under, limit)
        headers = _headers(etag, last_modified)
        clock = Deadline(deadline)
        transport = GuardedTransport(GuardedBackend(allow, clock), _tls(), limit)
        with httpx2.Client(transport=transport, trust_env=False, timeout=None) as client:
            return _follow(client, client.build_request("GET", url.strip(), headers=headers), limit)


def _headers(etag: str | None, last_modified: str | None) -> list[tuple[bytes, bytes]]:
    headers = [
        ("User-Agent", f"pgqueue/{version('pgqueue')} (feed reader)"),
        ("Accept", "application/rss+xml, application/atom+xml, application/feed+json, */*;q=0.8"),
        ("Accept-Encoding", "gzip, deflate"),
        ("If-None-Match", etag),
        ("If-Modified-Since", last_modified),
    ]
    # latin-1 both ways: a header's bytes come back as they were.
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers if value]


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _follow(client: httpx2.Client, request: httpx2.Request, limit: int) -> Fetched:
    """By hand, since the client would read the bodies of redirects without a limit."""
    permanent_url: str | None = None
    so_far_permanent = True
    for _ in range(MAX_REDIRECTS + 1):
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise Unreachable(f"not an http(s) address: {request.url.scheme or 'no scheme'}")
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                return _answered(response, permanent_url, limit)
        finally:
            response.close()
        request = response.next_request
        so_far_permanent = so_far_permanent and response.status_code in _PERMANENT
        if so_far_permanent:
            permanent_url = urldefrag(str(request.url)).url
    raise Unreachable(f"redirects: more than {MAX_REDIRECTS}")


def _answered(response: httpx2.Response, permanent_url: str | None, limit: int) -> Fetched:
    retry_after = _seconds(_header(response, b"retry-after"))
    if not (response.is_success or _is_answer_to_condition(response)):
        raise FetchError(
            str(response.url),
            f"http {response.status_code}",
            status=response.status_code,
            retry_after=retry_after,
            gone=response.status_code == _GONE,
        )
    return Fetched(
        status=response.status_code,
        url=without_password(urldefrag(str(response.url)).url),
        body=_body(response, limit) if response.is_success else b"",
        permanent_url=permanent_url,
        etag=_header(response, b"etag"),
        last_modified=_header(response, b"last-modified"),
        content_type=_header(response, b"content-type"),
        retry_after=retry_after,
    )


def _is_answer_to_condition(response: httpx2.Response) -> bool:
    asked = response.request.headers
    conditional = "if-none-match" in asked or "if-modified-since" in asked
    return response.status_code == _NOT_MODIFIED and conditional


def _body(response: httpx2.Response, limit: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise Unreachable(f"too large: more than {limit} bytes")
    return bytes(body)


def _header(response: httpx2.Response, name: bytes) -> str | None:
    values = [value for key, value in response.headers.raw if key.lower() == name]
    return values[0].decode("latin-1") if values else None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After (RFC 9110, 10.2.3: seconds or a date) as seconds from now; None if unreadable."""
    if not retry_after:
        return None
    text = retry_after.strip()
    try:
        seconds = float(int(text)) if text.isdigit() else _until(parsedate_to_datetime(text))
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def _until(instant: datetime) -> float:
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Every way in which a fetch goes wrong, as FetchError with a short reason."""
    try:
        yield
    except Unreachable as error:
        raise FetchError(url, error.reason) from error
    except (httpcore2.TimeoutException, httpx2.TimeoutException) as error:
        raise FetchError(url, "timeout: the server did not answer in time") from error
    except httpcore2.NetworkError as error:
        raise FetchError(url, _network_reason(error)) from error
    except httpx2.DecodingError as error:
        raise FetchError(url, f"broken compression: {error}") from error
    except (httpcore2.ProtocolError, httpx2.HTTPError) as error:
        raise FetchError(url, f"broken answer: {error}") from error
    except (httpcore2.UnsupportedProtocol, httpx2.InvalidURL, ValueError) as error:
        raise FetchError(url, f"not an http(s) address: {error}") from error


def _network_reason(error: httpcore2.NetworkError) -> str:
    cause = error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"tls: {cause.reason or cause}"
    if isinstance(cause, ConnectionRefusedError):
        return "refused: nothing listens at that address"
    return f"network: {error}"


def _read_file(url: str, etag: str | None, roots: tuple[Path, ...], limit: int) -> Fetched:
    path = _allowed_file(url, roots)
    try:
        with open(path, "rb", opener=_open_plain) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unreachable("file: not a regular file")
            tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
            body = b"" if tag == etag else file.read(limit + 1)
    except OSError as error:
        raise Unreachable(f"file: {error.strerror}") from error
    if len(body) > limit:
        raise Unreachable(f"too large: more than {limit} bytes")
    modified = datetime.fromtimestamp(int(found.st_mtime), UTC)
    return Fetched(
        status=_NOT_MODIFIED if tag == etag else 200,
        url=url,
        body=body,
        etag=tag,
        last_modified=format_datetime(modified, usegmt=True),
    )


def _open_plain(path: str, flags: int) -> int:
    # NONBLOCK: a pipe in the folder would wait for its writer for ever. NOFOLLOW: the path is
    # resolved already, so a link here was swapped in since.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _allowed_file(url: str, roots: tuple[Path, ...]) -> Path:
    """The real path; refused alike whether it exists or not, to tell nothing about the disk."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Unreachable("file not allowed: the address names another machine")
    try:
        path = Path(url2pathname(parts.path)).resolve()
        allowed = any(path.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError):
        allowed = False
    if not allowed:
        raise Unreachable("file not allowed: it lies outside the folders that may be read")
    return path
