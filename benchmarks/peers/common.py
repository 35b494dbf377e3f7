"""What every Python peer shares: its environment, the commands, and the marks of started jobs.

A peer is one class with five methods; a file of it is run in an environment of its own as
`python NAME_peer.py COMMAND …`, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mmap
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DSN = os.environ.get("BENCH_DSN", "")
REDIS = os.environ.get("BENCH_REDIS", "")
SETTING = os.environ.get("BENCH_SETTING", "default")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "10"))
LANES = int(os.environ.get("BENCH_LANES", "0"))
_RUN = Path(os.environ.get("BENCH_RUN", "."))
_PAYLOAD = int(os.environ.get("BENCH_PAYLOAD", "0"))
_CHUNK = int(os.environ.get("BENCH_CHUNK", "1000"))
# What Postgres cannot compress, as real payloads hardly can.
_FILLING = base64.b64encode(random.Random(0).randbytes(_PAYLOAD)).decode()  # noqa: S311
_SHIFTS = 97

Payload = dict[str, Any]

_SLOT = struct.Struct("<Qdd")
_SECONDS = struct.Struct("<d")


class _Marker:
    """Counts started jobs in a small mapped file per process: how many, first and last start."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()

    def __call__(self, enqueued_at: float | None = None) -> None:
        """The first act of every handler; with the time of the enqueue call, its latency, too."""
        now = time.time()
        with self._lock:
            if self._pid != os.getpid():  # a pool has forked
                self._open(now)
            self._count += 1
            _SLOT.pack_into(self._map, 0, self._count, self._first, now)
        if enqueued_at:
            os.write(self._latencies, _SECONDS.pack(now - enqueued_at))

    def _open(self, now: float) -> None:
        self._pid, self._count, self._first = os.getpid(), 0, now
        path = _RUN / f"slot-{self._pid}"
        path.write_bytes(bytes(_SLOT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SLOT.size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._latencies = os.open(_RUN / f"latency-{self._pid}", flags, 0o644)


mark = _Marker()


def payload(number: int, **more: Any) -> Payload:
    """The arguments of one job, filled up to the size asked for (in bytes of JSON)."""
    arguments: Payload = {"n": number, **more}
    missing = _PAYLOAD - len(json.dumps(arguments)) - len(', "pad": ""')
    if missing <= 0:
        return arguments
    start = number % _SHIFTS % (len(_FILLING) - missing)
    return {**arguments, "pad": _FILLING[start : start + missing]}


def chunks(count: int) -> Iterator[list[Payload]]:
    """`count` payloads in lists of a chunk; made before the clock starts ticking for them."""
    size = _CHUNK or count
    for start in range(0, count, size):
        yield [payload(n) for n in range(start, min(start + size, count))]


class AsyncPeer:
    """A queue with an async interface."""

    async def migrate(self) -> None: ...

    async def open(self) -> None: ...

    async def add(self, payload: Payload) -> None:
        """Enqueue one no-op job as the library's documentation does it."""

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        """Enqueue many in as few steps as the library offers."""

    async def work(self) -> None:
        """Run a worker until terminated."""

    async def one(self, count: int) -> None:
        await self.open()
        await self.add(payload(-1))
        began = time.perf_counter()
        for number in range(count):
            await self.add(payload(number))
        _report(count, time.perf_counter() - began)

    async def bulk(self, count: int, task: str) -> None:
        await self.open()
        ready = list(chunks(count))
        began = time.perf_counter()
        for part in ready:
            await self.add_many(task, part)
        _report(count, time.perf_counter() - began)

    async def latency(self, count: int, every: float, batch: int) -> None:
        await self.open()
        due = began = time.perf_counter()
        for number in range(0, count, batch):
            due += every
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now = time.time()
            if batch == 1:
                await self.add(payload(number, t=now))
            else:
                await self.add_many("noop", [payload(number + n, t=now) for n in range(batch)])
        _report(count, time.perf_counter() - began)

    def main(self) -> None:
        asyncio.run(_chosen(self))


class SyncPeer:
    """A queue with a blocking interface."""

    def migrate(self) -> None: ...

    def open(self) -> None: ...

    def add(self, payload: Payload) -> None: ...

    def add_many(self, task: str, payloads: list[Payload]) -> None: ...

    def work(self) -> None: ...

    def one(self, count: int) -> None:
        self.open()
        self.add(payload(-1))
        began = time.perf_counter()
        for number in range(count):
            self.add(payload(number))
        _report(count, time.perf_counter() - began)

    def bulk(self, count: int, task: str) -> None:
        self.open()
        ready = list(chunks(count))
        began = time.perf_counter()
        for part in ready:
            self.add_many(task, part)
        _report(count, time.perf_counter() - began)

    def latency(self, count: int, every: float, batch: int) -> None:
        self.open()
        due = began = time.perf_counter()
        for number in range(0, count, batch):
            due += every
            time.sleep(max(0.0, due - time.perf_counter()))
            now = time.time()
            if batch == 1:
                self.add(payload(number, t=now))
            else:
                self.add_many("noop", [payload(number + n, t=now) for n in range(batch)])
        _report(count, time.perf_counter() - began)

    def main(self) -> None:
        _chosen(self)


def _chosen(peer: AsyncPeer | SyncPeer) -> Any:
    command, *words = sys.argv[1:]
    match command, words:
        case "migrate", []:
            return peer.migrate()
        case "worker", []:
            return peer.work()
        case "one", [count]:
            return peer.one(int(count))
        case "bulk", [count, task]:
            return peer.bulk(int(count), task)
        case "latency", [count, every, batch]:
            return peer.latency(int(count), float(every), int(batch))
    raise SystemExit(f"unknown command: {' '.join(sys.argv[1:])}")


def _report(count: int, seconds: float) -> None:
    sys.stdout.write(json.dumps({"jobs": count, "seconds": seconds}) + "\n")
    sys.stdout.flush()


def in_turn(items: Iterable[Any], count: int) -> list[list[Any]]:
    """The items dealt out to `count` lists."""
    hands: list[list[Any]] = [[] for _ in range(count)]
    for number, item in enumerate(items):
        hands[number % count].append(item)
    return hands
