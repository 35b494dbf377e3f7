"""The workloads W1 to W8 of the page, each as one function that makes one run of one peer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.bench import Bench, Drained, PeerFailed
from benchmarks.catalog import STRANGER
from benchmarks.claims import claim_times
from benchmarks.results import percentile

RUN_SECONDS = 4
MOST_JOBS = 100_000
FEWEST_JOBS = 1_500
WAITING_JOBS = 2_000
CHURN = 100_000
"""A drain lasts about so long, and has at most and at least so many jobs."""

LATENCY_JOBS = 200
LATENCY_EVERY = 0.05
LOAD_SECONDS = 5
LOAD_EVERY = 0.01
SETTLE = 2.5
"""Seconds that a worker gets to start before the first of its jobs comes."""

IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said on the command line; 0 or empty: by the peer's pace."""

    jobs: int = 0
    concurrency: int = 10
    workers: int = 1
    rate: int = 0
    chunk: int = 1000
    dead: tuple[int, ...] = (0, 100_000)
    payload: tuple[int, ...] = (100, 2_000, 50_000)
    backlog: int = 1_000_000
    lanes: int = 100
    strangers: int = 100_000


def _sized(bench: Bench, options: Options) -> int:
    jobs = options.jobs or min(MOST_JOBS, bench.peer.pace * RUN_SECONDS)
    return max(jobs, FEWEST_JOBS) if not options.jobs else jobs


def _tell_drain(bench: Bench, workload: str, drained: Drained, given: dict[str, Any]) -> None:
    bench.tell(workload, drained.per_second, "jobs/s", given, drained.measures())


def one(bench: Bench, options: Options, **given: Any) -> None:
    """W1: enqueue one after the other."""
    bench.fresh()
    jobs = options.jobs or max(500, min(3_000, bench.peer.pace))
    before = bench.store.written()
    reported = bench.call("one", jobs, **given)
    after = bench.store.written()
    wal = None if before is None or after is None else round((after - before) / jobs)
    rate = reported["jobs"] / reported["seconds"]
    bench.tell("enqueue-one", rate, "jobs/s", {"jobs": jobs, **given}, {"wal_per_job": wal})


def _fill(bench: Bench, jobs: int, task: str = "noop", **given: Any) -> None:
    """Enqueue in bulk and tell how fast that was."""
    reported = bench.fill(jobs, task, **given)
    rate = reported["jobs"] / reported["seconds"]
    measures = {"wal_per_job": reported["wal_per_job"]}
    bench.tell("enqueue-bulk", rate, "jobs/s", {"jobs": jobs, "task": task, **given}, measures)


def bulk(bench: Bench, options: Options) -> None:
    """W1: enqueue many; the chunk is how many go into one call, 0 for all."""
    bench.fresh()
    _fill(bench, options.jobs or MOST_JOBS, chunk=options.chunk)


def drain(bench: Bench, options: Options) -> None:
    """W2: no-op jobs that are all there when the workers start."""
    jobs = _sized(bench, options)
    bench.fresh()
    _fill(bench, jobs, chunk=options.chunk)
    bench.analyze()
    drained = bench.drain(jobs, workers=options.workers, concurrency=options.concurrency)
    given = {"jobs": jobs, "concurrency": options.concurrency, "workers": options.workers}
    _tell_drain(bench, "drain", drained, given)


def latency(bench: Bench, options: Options) -> None:
    """W3: from the enqueue call to the start of the handler, 20 jobs a second."""
    _latency(bench, options, LATENCY_JOBS, LATENCY_EVERY, 1)


def load(bench: Bench, options: Options) -> None:
    """W3: the same at half the pace of the drain, or at `rate`."""
    rate = options.rate or bench.peer.pace // 2
    batch = max(1, round(rate * LOAD_EVERY))
    _latency(bench, options, rate * LOAD_SECONDS, batch / rate, batch)


def _latency(bench: Bench, options: Options, jobs: int, every: float, batch: int) -> None:
    bench.fresh()
    with bench.workers(1, concurrency=options.concurrency) as workers:
        time.sleep(SETTLE)
        reported = bench.call("latency", jobs, every, batch)
        give_up = time.time() + 20
        while len(times := workers.latencies()) < jobs and time.time() < give_up:
            time.sleep(0.1)
    if not times:
        raise PeerFailed(f"{bench.peer.name}: no job started")
    given = {"rate": round(batch / every), "batch": batch, "concurrency": options.concurrency}
    shares = {"p95": 0.95, "p99": 0.99, "max": 1.0}
    measures = {name: round(1000 * percentile(times, share), 2) for name, share in shares.items()}
    measures |= {"started": len(times), "enqueued_per_s": round(jobs / reported["seconds"], 1)}
    bench.tell("latency", 1000 * percentile(times, 0.5), "ms", given, measures)


def waiting(bench: Bench, options: Options) -> None:
    """W4: 2,000 jobs that each wait for 100 ms; the ideal is 2.0 s at a concurrency of 100."""
    bench.fresh()
    bench.fill(WAITING_JOBS, "sleep100")
    bench.analyze()
    drained = bench.drain(WAITING_JOBS, workers=1, concurrency=100)
    given = {"jobs": WAITING_JOBS, "concurrency": 100}
    bench.tell("waiting", drained.seconds, "s", given, drained.measures())


def snapshot(bench: Bench, options: Options) -> None:
    """W5: a drain with so many dead rows, while a snapshot is held that keeps them, and without."""
    for dead in options.dead:
        for held in (False, True):
            _snapshot(bench, options, dead, held=held)


def _snapshot(bench: Bench, options: Options, dead: int, *, held: bool) -> None:
    bench.fresh()
    jobs = _sized(bench, options)
    concurrency = options.concurrency
    with bench.postgres.held_snapshot() if held else nullcontext():
        for done in range(0, dead, CHURN):
            count = min(CHURN, dead - done)
            bench.fill(count)
            bench.drain(count, concurrency=concurrency, timeout=900)
        bench.fill(jobs)
        drained, claims = _timed_drain(bench, jobs, concurrency)
    given = {"jobs": jobs, "dead": dead, "held": held, "concurrency": concurrency}
    measures = drained.measures() | claims
    bench.tell("snapshot", drained.per_second, "jobs/s", given, measures)


def _timed_drain(bench: Bench, jobs: int, concurrency: int) -> tuple[Drained, dict[str, Any]]:
    """A drain, and how long its claims took by the server's own log (where it can be read)."""
    if bench.peer.environment != "project" or not bench.server_log:
        return bench.drain(jobs, concurrency=concurrency, timeout=900), {}
    bench.postgres.log_statements()
    offset = bench.postgres.log_offset(bench.server_log)
    drained = bench.drain(jobs, concurrency=concurrency, timeout=900)
    times = sorted(claim_times(bench.postgres.log_from(bench.server_log, offset)))
    if not times:
        return drained, {}
    shares = {"claim_p50_ms": 0.5, "claim_p99_ms": 0.99, "claim_max_ms": 1.0}
    told = {name: round(percentile(times, share), 2) for name, share in shares.items()}
    return drained, told | {"claims": len(times)}


def backlog(bench: Bench, options: Options) -> None:
    """W6: the rate of the first jobs, with little and with much queued behind them."""
    first = options.jobs or 50_000
    for queued in (first, options.backlog):
        template = f"{bench.postgres.name}_{bench.setting}_queued_{queued}"
        _prepared(bench, template, partial(_fill, bench, queued, chunk=options.chunk))
        drained = bench.drain(
            queued, until_started=first, concurrency=options.concurrency, timeout=900
        )
        given = {"jobs": first, "queued": queued, "concurrency": options.concurrency}
        _tell_drain(bench, "backlog", drained, given)


def history(bench: Bench, options: Options) -> None:
    """W6: a drain in a database that holds many finished jobs."""
    jobs = _sized(bench, options)
    for finished in (0, options.backlog):
        template = f"{bench.postgres.name}_{bench.setting}_finished_{finished}"
        _prepared(bench, template, partial(_finish, bench, finished, options))
        bench.fill(jobs)
        bench.analyze()
        drained = bench.drain(jobs, concurrency=options.concurrency)
        given = {"jobs": jobs, "finished": finished, "concurrency": options.concurrency}
        _tell_drain(bench, "history", drained, given)


def _finish(bench: Bench, jobs: int, options: Options) -> None:
    if not jobs:
        return
    bench.fill(jobs)
    drained = bench.drain(jobs, concurrency=options.concurrency, timeout=1800)
    given = {"jobs": jobs, "concurrency": options.concurrency, "workers": 1}
    _tell_drain(bench, "drain-long", drained, given)


def _prepared(bench: Bench, template: str, make: Callable[[], None]) -> None:
    """Begin with a copy of `template`, which is made at its first use."""
    template = template.replace("-", "_")
    if not bench.postgres.exists(template):
        bench.fresh()
        make()
        bench.analyze()
        bench.postgres.keep_as(template)
    bench.fresh(template)


def lanes(bench: Bench, options: Options) -> None:
    """W7: many queues with three priorities each, against one queue with one."""
    jobs = _sized(bench, options)
    for queues in (0, options.lanes):
        bench.fresh()
        bench.fill(jobs, lanes=queues, chunk=0)
        bench.analyze()
        drained = bench.drain(jobs, concurrency=options.concurrency)
        given = {
            "jobs": jobs,
            "queues": queues or 1,
            "priorities": 3 if queues else 1,
            "concurrency": options.concurrency,
        }
        _tell_drain(bench, "lanes", drained, given)


def strangers(bench: Bench, options: Options) -> None:
    """W7: due jobs that no worker knows, older than all the others of their queue."""
    jobs = _sized(bench, options)
    for unknown in (0, options.strangers):
        bench.fresh()
        if unknown:
            bench.fill(unknown, STRANGER)
        bench.fill(jobs)
        bench.analyze()
        drained = bench.drain(jobs, concurrency=options.concurrency)
        given = {"jobs": jobs, "unknown": unknown, "concurrency": options.concurrency}
        _tell_drain(bench, "strangers", drained, given)


def payloads(bench: Bench, options: Options) -> None:
    """W8: larger payloads."""
    for size in options.payload:
        jobs = min(_sized(bench, options), math.ceil(400_000_000 / max(size, 1_000)))
        one(bench, options, payload=size)
        bench.fresh()
        _fill(bench, jobs, payload=size)
        bench.analyze()
        drained = bench.drain(jobs, concurrency=options.concurrency)
        given = {"jobs": jobs, "payload": size, "concurrency": options.concurrency}
        _tell_drain(bench, "payload", drained, given)


def idle(bench: Bench, options: Options) -> None:
    """A worker with nothing to do: its CPU in percent of a core, and what it asks the server."""
    bench.fresh()
    with bench.workers(1, concurrency=options.concurrency) as workers:
        time.sleep(2 * SETTLE)
        cpu, asked, began = workers.cpu(), bench.postgres.transactions(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - began
        share = 100 * (workers.cpu() - cpu) / seconds
        measures = {
            "transactions_per_s": round((bench.postgres.transactions() - asked) / seconds, 2),
            "worker_mib": round(workers.memory(), 1),
        }
    bench.tell("idle", share, "% of a core", {"concurrency": options.concurrency}, measures)


WORKLOADS: dict[str, Callable[[Bench, Options], None]] = {
    "one": one,
    "bulk": bulk,
    "drain": drain,
    "latency": latency,
    "load": load,
    "waiting": waiting,
    "snapshot": snapshot,
    "backlog": backlog,
    "history": history,
    "lanes": lanes,
    "strangers": strangers,
    "payloads": payloads,
    "idle": idle,
}
