from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore2
import pytest

from pgqueue.pipeline.fetch import Allowed, Fetched, FetchError, fetch
from pgqueue.pipeline.guard import Deadline, GuardedBackend, GuardedTransport

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A web server on loopback; `pages` maps a path to what writes the answer."""

    base: str
    allow: Allowed
    pages: dict[str, Answer]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def get(self, path: str, **options: Any) -> Fetched:
        return fetch(self.base + path, allow=self.allow, **options)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked.append((self.path, dict(self.headers)))
            here.pages[self.path](self)

        def log_message(self, *args: object) -> None:
            """Quiet: the tests' output is not the server's place."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """A client that hangs up is what several of these tests want."""

    server = Server(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    here = Site(f"http://127.0.0.1:{port}", frozenset({("127.0.0.1", port)}), {})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    def write(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return write


def reason_of(site: Site, path: str, **options: Any) -> str:
    with pytest.raises(FetchError) as caught:
        site.get(path, **options)
    assert str(caught.value) == f"{site.base}{path}: {caught.value.reason}"
    return caught.value.reason


def test_a_fetch_gives_the_body_and_what_the_next_request_needs(site: Site) -> None:
    site.pages["/feed"] = answer(
        200, b"<rss/>", ETag='W/"\xe9 1"', Last_Modified="yesterday, or so", Content_Type="text/xml"
    )
    got = site.get("/feed")
    assert got == Fetched(
        status=200,
        url=f"{site.base}/feed",
        body=b"<rss/>",
        etag='W/"\xe9 1"',
        last_modified="yesterday, or so",
        content_type="text/xml",
    )


def test_a_second_fetch_sends_the_validators_back_letter_by_letter(site: Site) -> None:
    site.pages["/feed"] = answer(304, ETag='W/"\xe9 1"')
    got = site.get("/feed", etag='W/"\xe9 1"', last_modified="yesterday, or so")
    sent = site.asked[0][1]
    assert (sent["If-None-Match"], sent["If-Modified-Since"]) == ('W/"\xe9 1"', "yesterday, or so")
    assert got.not_modified
    assert got.body == b""


def test_not_modified_without_a_question_is_an_error(site: Site) -> None:
    site.pages["/feed"] = answer(304)
    assert reason_of(site, "/feed") == "http 304"


def test_the_fetcher_says_honestly_who_it_is(site: Site) -> None:
    site.pages["/feed"] = answer(200)
    site.get("/feed")
    assert site.asked[0][1]["User-Agent"].startswith("pgqueue/")


@pytest.mark.parametrize("status", [404, 410, 429, 500, 503])
def test_a_refusal_is_an_error_that_keeps_the_status(site: Site, status: int) -> None:
    site.pages["/feed"] = answer(status, b"sorry", Retry_After="120")
    with pytest.raises(FetchError) as caught:
        site.get("/feed")
    assert caught.value.reason == f"http {status}"
    assert caught.value.status == status
    assert caught.value.retry_after == 120.0
    assert caught.value.gone == (status == 410)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("99999999999", 604_800.0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 604_800.0),
        ("soon", None),
        ("-5", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    site: Site, header: str, seconds: float | None
) -> None:
    site.pages["/feed"] = answer(503, Retry_After=header)
    with pytest.raises(FetchError) as caught:
        site.get("/feed")
    assert caught.value.retry_after == seconds


def test_a_chain_of_permanent_moves_tells_the_new_address(site: Site) -> None:
    site.pages["/a"] = answer(301, Location="/b")
    site.pages["/b"] = answer(308, Location="/c#part")
    site.pages["/c"] = answer(302, Location="/d")
    site.pages["/d"] = answer(200, b"x")
    got = site.get("/a")
    assert got.permanent_url == f"{site.base}/c"
    assert got.url == f"{site.base}/d"


def test_a_permanent_move_behind_a_temporary_one_is_not_ours_to_keep(site: Site) -> None:
    site.pages["/a"] = answer(307, Location="/b")
    site.pages["/b"] = answer(301, Location="/c")
    site.pages["/c"] = answer(200)
    assert site.get("/a").permanent_url is None


def test_redirects_in_a_circle_end_after_five(site: Site) -> None:
    site.pages["/a"] = answer(302, Location="/b")
    site.pages["/b"] = answer(302, Location="/a")
    assert reason_of(site, "/a") == "redirects: more than 5"
    assert len(site.asked) == 6


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://127.0.0.1:1/", "address not allowed: 127.0.0.1 is not public"),
        ("http://10.0.0.1/", "address not allowed: 10.0.0.1 is not public"),
        ("http://169.254.169.254/latest", "address not allowed: 169.254.169.254 is not public"),
        ("http://[::ffff:127.0.0.1]/", "address not allowed: ::ffff:7f00:1 is not public"),
        ("http://2130706433/", "address not allowed: 127.0.0.1 is not public"),
        ("file:///etc/passwd", "not an http(s) address: file"),
        ("ftp://news.example/", "not an http(s) address: ftp"),
    ],
)
def test_a_redirect_is_judged_like_the_first_address(
    site: Site, target: str, expected: str
) -> None:
    site.pages["/a"] = answer(302, Location=target)
    assert reason_of(site, "/a").startswith(expected)


def test_an_endless_body_of_a_redirect_is_not_read(site: Site) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", "/b")
        request.end_headers()
        request.wfile.write(b"x" * 1000)
        hang_up.wait(10)

    hang_up = threading.Event()
    site.pages["/a"] = endless
    site.pages["/b"] = answer(200, b"there")
    assert site.get("/a").body == b"there"
    hang_up.set()


def test_a_slow_drip_ends_with_the_deadline(site: Site) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while not over.wait(0.02):
            request.wfile.write(b"x")
            request.wfile.flush()

    over = threading.Event()
    site.pages["/drip"] = drip
    started = time.monotonic()
    assert reason_of(site, "/drip", deadline=0.4).startswith("timeout:")
    assert time.monotonic() - started < 3
    over.set()


def test_a_silent_server_ends_with_the_deadline(site: Site) -> None:
    over = threading.Event()
    site.pages["/silent"] = lambda _: bool(over.wait(10)) and None
    assert reason_of(site, "/silent", deadline=0.3).startswith("timeout:")
    over.set()


def test_a_resolver_that_never_answers_ends_with_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [] * over.wait(10))
    with pytest.raises(FetchError, match="timeout:"):
        fetch("http://news.example/", deadline=0.2)
    over.set()


def test_five_megabytes_are_counted_after_decompression(site: Site) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=1)
    assert len(bomb) < 5_000_000
    site.pages["/bomb"] = answer(200, bomb, Content_Encoding="gzip")
    assert reason_of(site, "/bomb") == "too large: more than 5000000 bytes"


def test_what_inflates_to_nothing_is_not_read_for_ever(site: Site) -> None:
    site.pages["/air"] = answer(
        200, gzip.compress(b"small") + b"\0" * 300_000, Content_Encoding="gzip"
    )
    assert reason_of(site, "/air", limit=100_000) == "too large: more than 100000 bytes"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_body_within_the_limit_comes_whole(site: Site, encoding: str) -> None:
    text = b"wind and sun " * 10_000
    packed = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "identity": text}
    site.pages["/feed"] = answer(200, packed[encoding], Content_Encoding=encoding)
    assert site.get("/feed", limit=len(text)).body == text


def test_broken_compression_is_told(site: Site) -> None:
    site.pages["/feed"] = answer(200, b"this is no gzip", Content_Encoding="gzip")
    assert reason_of(site, "/feed").startswith("broken compression:")


def test_a_body_cut_short_is_told(site: Site) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"<rss>")

    site.pages["/feed"] = cut
    assert reason_of(site, "/feed").startswith("broken answer:")


def test_a_server_that_does_not_speak_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ready\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(FetchError, match=r"broken answer:|network:"):
            fetch(f"http://127.0.0.1:{port}/", allow=frozenset({("127.0.0.1", port)}))
        thread.join()


def test_https_to_a_plain_server_is_a_tls_error(site: Site) -> None:
    with pytest.raises(FetchError, match="tls:"):
        fetch(site.base.replace("http:", "https:"), allow=site.allow)


def test_a_closed_port_is_told_as_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchError, match="refused:"):
        fetch(f"http://127.0.0.1:{port}/", allow=frozenset({("127.0.0.1", port)}))


@pytest.mark.parametrize(
    "url", ["", "feed", "ftp://news.example/", "http://", "http://a:b/", "http:///x"]
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(FetchError, match=r"not an http\(s\) address"):
        fetch(url)


def test_a_name_that_cannot_be_is_told_as_dns() -> None:
    with pytest.raises(FetchError, match="dns:"):
        fetch(f"http://{'a' * 70}.example/")


def test_the_allowed_port_opens_no_other_port(site: Site) -> None:
    other = frozenset({("127.0.0.1", 1)})
    with pytest.raises(FetchError, match=r"address not allowed.*PGQUEUE_FETCH_ALLOW"):
        fetch(site.base, allow=other)
    assert site.asked == []


def test_proxies_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    site.pages["/feed"] = answer(200, b"direct")
    assert site.get("/feed").body == b"direct"


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names are answered from `answers`, one list a question; literal addresses as ever."""
    real, left, names = socket.getaddrinfo, list(answers), []

    def fake(host: str, port: int, *args: Any, **options: Any) -> Any:
        if not host.endswith(".example"):
            return real(host, port, *args, **options)
        names.append(host)
        return [(0, 0, 0, "", (address, port)) for address in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return names


def test_one_private_answer_among_public_ones_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver(monkeypatch, ["93.184.216.34", "10.0.0.7"])
    with pytest.raises(FetchError, match=r"address not allowed: 10\.0\.0\.7"):
        fetch("http://news.example/")


def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_connected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolver(monkeypatch, ["127.0.0.1"], ["10.0.0.7"])
    site.pages["/feed"] = answer(200, b"x")
    port = site.base.rpartition(":")[2]
    got = fetch(f"http://news.example:{port}/feed", allow=site.allow)
    assert names == ["news.example"]
    assert site.asked[0][1]["Host"] == f"news.example:{port}"
    assert got.url == f"http://news.example:{port}/feed"


def test_the_next_address_is_tried_when_the_first_does_not_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.base.rpartition(":")[2])
    resolver(monkeypatch, ["127.0.0.9", "127.0.0.1"])
    site.pages["/feed"] = answer(200, b"x")
    both = site.allow | {("127.0.0.9", port)}
    assert fetch(f"http://news.example:{port}/feed", allow=both).body == b"x"


def test_a_password_in_the_address_is_used_and_never_told(site: Site) -> None:
    site.pages["/feed"] = answer(200, b"x")
    site.pages["/none"] = answer(404)
    address = site.base.replace("//", "//reader:s3cret@")
    assert fetch(f"{address}/feed", allow=site.allow).url == f"{site.base}/feed"
    assert site.asked[0][1]["Authorization"].startswith("Basic ")
    with pytest.raises(FetchError) as caught:
        fetch(f"{address}/none", allow=site.allow)
    assert "s3cret" not in str(caught.value) + caught.value.url


def test_every_connection_of_the_client_goes_through_the_guard() -> None:
    """The parts of httpx2 and httpcore2 that the guard stands on; fails if an update moves them."""
    backend = GuardedBackend(frozenset(), Deadline(5))
    transport = GuardedTransport(backend, httpcore2.default_ssl_context(), 1000)
    assert transport._pool._network_backend is backend
    assert set(vars(httpcore2.NetworkBackend)) >= {"connect_tcp", "connect_unix_socket"}
    assert issubclass(GuardedBackend, httpcore2.NetworkBackend)
