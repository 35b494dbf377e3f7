"""Celery on Redis. Settings: default (prefork); tuned (prefetches 64); tuned-threads."""

from __future__ import annotations

import time

from celery import Celery
from common import CONCURRENCY, REDIS, SETTING, Payload, SyncPeer, mark

LIGHT = ["--without-gossip", "--without-mingle", "--without-heartbeat"]

app = Celery("celery_peer", broker=REDIS)
app.conf.update(task_ignore_result=True)
if SETTING != "default":
    app.conf.update(worker_prefetch_multiplier=64, worker_send_task_events=False)


@app.task(name="noop")
def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


@app.task(name="sleep100")
def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    time.sleep(0.1)


TASKS = {"noop": noop, "sleep100": sleep100}


class CeleryPeer(SyncPeer):
    def add(self, payload: Payload) -> None:
        noop.delay(**payload)

    def add_many(self, task: str, payloads: list[Payload]) -> None:
        """It has no bulk call; one producer for all is what its documentation advises."""
        with app.producer_pool.acquire(block=True) as producer:
            for payload in payloads:
                TASKS[task].apply_async(kwargs=payload, producer=producer)

    def work(self) -> None:
        words = ["worker", "-l", "ERROR", "-c", str(CONCURRENCY)]
        words += ["-P", "threads"] if SETTING.endswith("threads") else []
        app.worker_main(words + (LIGHT if SETTING != "default" else []))


if __name__ == "__main__":
    CeleryPeer().main()
