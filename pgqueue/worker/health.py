"""Tells over HTTP whether this worker lives and is ready; from a thread of its own, so that a
blocked event loop is seen and not suffered.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from pgqueue.errors import ConfigError

STALL_LIMIT = 60.0
"""Seconds that the event loop may be blocked, or a beat may hang, in a worker called alive."""

REQUEST_TIMEOUT = 5.0

Answers = Mapping[str, Callable[[], list[str]]]
"""Path and what gives the reasons against it."""


class Vitals(Protocol):
    """What a worker says of itself; called in the server's threads."""

    def loop_silence(self) -> float: ...
    def heart_idleness(self) -> float: ...
    def beat_silence(self) -> float: ...
    def beat_limit(self) -> float: ...
    def is_fenced(self) -> bool: ...
    def stop_reason(self) -> str: ...


def reasons_not_alive(vitals: Vitals) -> list[str]:
    """Why the process should be started anew; a database that is away is no such reason."""
    found = []
    if (silence := vitals.loop_silence()) > STALL_LIMIT:
        found.append(f"a handler has blocked the event loop for {silence:.0f} s")
    if (idleness := vitals.heart_idleness()) > STALL_LIMIT:
        found.append(f"the heart has not tried to beat for {idleness:.0f} s")
    return found


def reasons_not_ready(vitals: Vitals) -> list[str]:
    """Why the worker takes no jobs at present."""
    found = reasons_not_alive(vitals)
    if reason := vitals.stop_reason():
        found.append(f"stopping: {reason}")
    if vitals.is_fenced():
        found.append("fenced: it could not prove that it lives and stopped its handlers")
    if (silence := vitals.beat_silence()) > vitals.beat_limit():
        found.append(f"the database was not reached for {silence:.0f} s")
    return found


class AnswerServer:
    """Each path of `answers` on `host:port`: 503 for the reasons it gives, in JSON, else 200.

    Binds at once, port 0 to any free one; answers from `start` on, in threads. Raises ConfigError
    when the address cannot be had.
    """

    def __init__(self, answers: Answers, host: str, port: int) -> None:
        try:
            self._server = _server_class(host)((host, port), _handler(answers))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"no health endpoint at {host}:{port}: {error}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="pgqueue-health",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port, *_ = self._server.server_address
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; safe to call when it was never started."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class HealthServer(AnswerServer):
    """`/healthz` and `/readyz` of one worker."""

    def __init__(self, vitals: Vitals, host: str, port: int) -> None:
        answers: Answers = {
            "/healthz": lambda: reasons_not_alive(vitals),
            "/readyz": lambda: reasons_not_ready(vitals),
        }
        super().__init__(answers, host, port)


class _Server(ThreadingHTTPServer):
    # A request that hangs must not keep a worker from leaving.
    daemon_threads = True
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT
        server_version = "pgqueue"
        sys_version = ""

        def do_GET(self) -> None:
            reasons = answers.get(self.path.partition("?")[0])
            if reasons is None:
                self._answer(HTTPStatus.NOT_FOUND, {"paths": sorted(answers)})
                return
            found = reasons()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            self._answer(status, {"ok": not found, "reasons": found})

        def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A probe every few seconds is nothing to tell."""

    return Handler
