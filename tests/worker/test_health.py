"""A worker says over HTTP whether it lives and is ready, also when its event loop cannot."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from pgqueue import PgQueue
from pgqueue.errors import ConfigError
from pgqueue.events import WorkerStarted
from pgqueue.worker.health import HealthServer
from proving import Recorder


@dataclass
class Vitals:
    """What a healthy worker says, until a test says otherwise."""

    facts: dict[str, Any] = field(default_factory=dict)

    def loop_silence(self) -> float:
        return float(self.facts.get("loop", 0.1))

    def heart_idleness(self) -> float:
        return float(self.facts.get("heart", 1.0))

    def beat_silence(self) -> float:
        return float(self.facts.get("beat", 1.0))

    def beat_limit(self) -> float:
        return 7.5

    def is_fenced(self) -> bool:
        return bool(self.facts.get("fenced", False))

    def stop_reason(self) -> str:
        return str(self.facts.get("stopping", ""))


def get(url: str, path: str) -> tuple[int, dict[str, Any]]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=10)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


@contextmanager
def serving(**facts: Any) -> Iterator[str]:
    server = HealthServer(Vitals(facts), "127.0.0.1", 0)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def test_a_worker_that_works_is_alive_and_ready() -> None:
    with serving() as url:
        assert get(url, "/healthz") == (200, {"ok": True, "reasons": []})
        assert get(url, "/readyz?verbose") == (200, {"ok": True, "reasons": []})


@pytest.mark.parametrize(
    ("facts", "alive", "reason"),
    [
        ({"loop": 61}, False, "a handler has blocked the event loop for 61 s"),
        ({"heart": 75}, False, "the heart has not tried to beat for 75 s"),
        ({"beat": 20}, True, "the database was not reached for 20 s"),
        ({"fenced": True}, True, "fenced: it could not prove that it lives"),
        ({"stopping": "SIGTERM"}, True, "stopping: SIGTERM"),
    ],
)
def test_each_trouble_is_told_with_its_reason(
    facts: dict[str, Any], *, alive: bool, reason: str
) -> None:
    with serving(**facts) as url:
        assert get(url, "/healthz")[0] == (200 if alive else 503)
        status, told = get(url, "/readyz")
    assert status == 503
    assert not told["ok"]
    assert told["reasons"][0].startswith(reason)


def test_another_path_says_which_there_are() -> None:
    with serving() as url:
        assert get(url, "/") == (404, {"paths": ["/healthz", "/readyz"]})


def test_a_port_that_is_taken_is_told_before_the_worker_starts() -> None:
    with serving() as url:
        port = urlsplit(url).port or 0
        with pytest.raises(ConfigError, match=f"no health endpoint at 127.0.0.1:{port}"):
            HealthServer(Vitals(), "127.0.0.1", port)


def test_the_endpoint_lives_on_ipv6_too() -> None:
    server = HealthServer(Vitals(), "::1", 0)
    server.start()
    try:
        assert get(server.url, "/readyz")[0] == 200
    finally:
        server.stop()


async def test_a_running_worker_answers_and_a_blocked_event_loop_keeps_nobody_from_it(
    database: str, recorder: Recorder
) -> None:
    pgq = PgQueue(database)
    asked = threading.Event()
    answers: list[tuple[int, dict[str, Any]]] = []

    @pgq.task
    async def block() -> None:
        asked.wait(20)

    block.enqueue()
    worker = pgq.worker(burst=True, health_port=0)

    def probe() -> None:
        (started,) = recorder.wait(WorkerStarted)
        answers.extend(get(started.health or "", path) for path in ("/healthz", "/readyz"))
        asked.set()

    prober = threading.Thread(target=probe)
    prober.start()
    await worker.run()
    prober.join()
    pgq.close()
    assert answers == [(200, {"ok": True, "reasons": []})] * 2


async def test_without_a_port_nothing_listens(database: str, recorder: Recorder) -> None:
    pgq = PgQueue(database)
    await pgq.worker(burst=True).run()
    pgq.close()
    assert recorder.of(WorkerStarted)[0].health is None
