"""RQ on Redis. Settings: default (forks for every job); tuned (SimpleWorker)."""

from __future__ import annotations

import time

from common import REDIS, SETTING, Payload, SyncPeer, mark
from redis import Redis
from rq import Queue, SimpleWorker, Worker

connection = Redis.from_url(REDIS)
queue = Queue("q", connection=connection)


def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    time.sleep(0.1)


class RqPeer(SyncPeer):
    def add(self, payload: Payload) -> None:
        queue.enqueue("rq_peer.noop", kwargs=payload, result_ttl=0)

    def add_many(self, task: str, payloads: list[Payload]) -> None:
        name = f"rq_peer.{task}"
        queue.enqueue_many([Queue.prepare_data(name, kwargs=p, result_ttl=0) for p in payloads])

    def work(self) -> None:
        chosen = Worker if SETTING == "default" else SimpleWorker
        chosen([queue], connection=connection).work(logging_level="ERROR")


if __name__ == "__main__":
    import rq_peer  # the handlers are imported once, before any fork

    rq_peer.RqPeer().main()
