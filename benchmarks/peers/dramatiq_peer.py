"""Dramatiq on Redis. Settings: default; tuned (only the middleware that a no-op needs)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import dramatiq
from common import CONCURRENCY, REDIS, SETTING, Payload, SyncPeer, mark
from dramatiq.brokers.redis import RedisBroker

NEEDED = ("Retries", "Callbacks")
COMMAND = str(Path(sys.executable).parent / "dramatiq")

broker = RedisBroker(url=REDIS)
if SETTING == "tuned":
    broker.middleware[:] = [m for m in broker.middleware if type(m).__name__ in NEEDED]
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="q")
def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


@dramatiq.actor(queue_name="q")
def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    time.sleep(0.1)


TASKS = {"noop": noop, "sleep100": sleep100}


class DramatiqPeer(SyncPeer):
    def add(self, payload: Payload) -> None:
        noop.send(**payload)

    def add_many(self, task: str, payloads: list[Payload]) -> None:
        """Its Redis broker has no bulk call: one send each."""
        for payload in payloads:
            TASKS[task].send(**payload)

    def work(self) -> None:
        words = ["dramatiq_peer", "--processes", "1", "--threads", str(CONCURRENCY), "--path", "."]
        os.execv(COMMAND, [COMMAND, *words])


if __name__ == "__main__":
    DramatiqPeer().main()
