"""The network as a fetcher of strangers' addresses may see it: public addresses, within a deadline.

A name is resolved once, every answer is judged, and the connection goes to the judged address
itself. So neither a redirect nor a name that answers differently the second time gets through.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpcore2
import httpx2

from pgqueue.errors import ConfigError

Allowed = frozenset[tuple[str, int]]
Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_MAX_PORT = 65_535
# One silent address of several must not use up the whole deadline.
_CONNECT_SECONDS = 5.0


class Unreachable(Exception):
    """The guard or the network said no; fetch() turns it into FetchError with this `reason`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Deadline:
    """An instant by which the whole request must be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, more than 0; raises Unreachable when there are none."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> Unreachable:
        """The error of a passed deadline."""
        return Unreachable(f"timeout: no full answer within {self.seconds:g} s")


def parse_allow(text: str) -> Allowed:
    """The (address, port) pairs of "127.0.0.1:8080,[::1]:8080"; raises ConfigError.

    Addresses only, no names: a name's owner could point it anywhere.
    """
    return frozenset(_allowed_pair(part.strip()) for part in text.split(",") if part.strip())


def is_public(address: Address) -> bool:
    """Whether the address, and the IPv4 address it may carry inside, belongs to the internet."""
    inner = _unwrapped(address)
    if inner.is_multicast or inner.is_reserved or not inner.is_global:
        return False
    return not (isinstance(inner, IPv6Address) and inner.is_site_local)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 address; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo_client = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo_client or address


def _allowed_pair(part: str) -> tuple[str, int]:
    host, colon, port = part.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        colon = ""
    if not colon or not 0 < number <= _MAX_PORT:
        raise ConfigError(
            f"PGQUEUE_FETCH_ALLOW holds {part!r}: write ADDRESS:PORT, such as 127.0.0.1:8080"
        )
    return str(address), number


class GuardedBackend(httpcore2.SyncBackend):
    """Connects to judged addresses only; all waiting ends with the deadline."""

    def __init__(self, allowed: Allowed, deadline: Deadline) -> None:
        self._allowed = allowed
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A stream to the first of the host's addresses that answers; `timeout` is not used."""
        addresses = _resolve(host, port, self._deadline)
        for address in addresses:
            self._judge(address, port)
        failure: Exception = Unreachable("dns: the name has no address")
        for address in addresses:
            wait = min(self._deadline.left(), _CONNECT_SECONDS)
            try:
                stream = super().connect_tcp(
                    str(address), port, wait, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Refused always."""
        raise Unreachable("address not allowed: a local socket")

    def _judge(self, address: Address, port: int) -> None:
        if (str(address), port) in self._allowed or is_public(address):
            return
        raise Unreachable(
            f"address not allowed: {address} is not public "
            "(an address of your own goes into PGQUEUE_FETCH_ALLOW)"
        )


class _TimedStream(httpcore2.NetworkStream):
    """A stream whose every wait is cut to what the deadline leaves: a slow drip ends too."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        secure = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _TimedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class GuardedTransport(httpx2.BaseTransport):
    """httpx2's way to the network, by httpcore2's public parts only.

    httpx2.HTTPTransport takes no network backend; replacing its private pool could one day
    silently do nothing, and the guard would be gone.
    """

    def __init__(self, backend: httpcore2.NetworkBackend, context: ssl.SSLContext, limit: int):
        self._pool = httpcore2.ConnectionPool(ssl_context=context, network_backend=backend)
        self._limit = limit

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange; raises httpcore2's errors and Unreachable."""
        answer = self._pool.handle_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_CountedBody(answer, self._limit)
        )

    def close(self) -> None:
        self._pool.close()


class _CountedBody(httpx2.SyncByteStream):
    """The body as it comes over the wire: what inflates to nothing must not be endless either."""

    def __init__(self, answer: httpcore2.Response, limit: int) -> None:
        self._answer = answer
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        taken = 0
        for chunk in self._answer.iter_stream():
            taken += len(chunk)
            if taken > self._limit:
                raise Unreachable(f"too large: more than {self._limit} bytes")
            yield chunk

    def close(self) -> None:
        self._answer.close()


def _resolve(host: str, port: int, deadline: Deadline) -> list[Address]:
    """The host's addresses, in the resolver's order, without repeats; raises Unreachable.

    In a thread of its own, since the system's resolver takes no time-out.
    """
    answers: queue.SimpleQueue[list[Address] | OSError | ValueError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_addresses(host, port))
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="pgqueue-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise deadline.passed() from None
    if isinstance(answer, ValueError):
        raise Unreachable("dns: not a host name") from answer
    if isinstance(answer, OSError):
        raise Unreachable(f"dns: {answer.strerror}") from answer
    return answer


def _addresses(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(row[4][0])) for row in found))
