"""The harness counts what happened: small runs whose result is known. No figure is judged here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from benchmarks.bench import Bench, Config, PeerFailed
from benchmarks.catalog import PEERS
from benchmarks.results import Results
from benchmarks.stores import Postgres
from benchmarks.workloads import WORKLOADS, Options


def _quiet(_: str) -> None:
    """A test has nobody to show results to."""


@pytest.fixture
def config(server_url: str, tmp_path: Path) -> Iterator[Config]:
    server = urlunsplit(urlsplit(server_url)._replace(path=""))
    results = Results(tmp_path / "results.jsonl", _quiet)
    yield Config(home=tmp_path, postgres=server, redis="", results=results, server_log="")
    store = Postgres(server, "bench_pgqueue", "select 0")
    for name in store.names("bench_"):
        store.drop(name)
    store.close()


def told(config: Config) -> list[dict[str, Any]]:
    lines = (config.home / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_drain_tells_what_went_in_and_what_came_out(config: Config) -> None:
    bench = Bench(config, PEERS["pgqueue"], "default")
    WORKLOADS["drain"](bench, Options(jobs=300))
    finished = bench.postgres.ask("select count(*) from pgqueue.finished_jobs")
    bench.store.close()
    assert finished == 300
    filled, drained = told(config)
    assert filled["workload"] == "enqueue-bulk"
    assert drained["workload"] == "drain"
    assert drained["given"] == {"jobs": 300, "concurrency": 10, "workers": 1}
    assert drained["value"] > 0
    assert drained["measures"]["worker_cpu_ms_per_job"] is not None


def test_a_drain_does_not_wait_for_jobs_that_nobody_knows(config: Config) -> None:
    bench = Bench(config, PEERS["pgqueue"], "default")
    WORKLOADS["strangers"](bench, Options(jobs=50, strangers=20))
    left = bench.postgres.ask("select count(*) from pgqueue.jobs")
    bench.store.close()
    assert left == 20


def test_a_worker_that_cannot_start_is_told_and_not_waited_for(config: Config) -> None:
    bench = Bench(config, PEERS["bare-psycopg"], "default")
    bench.postgres.create()  # without its table
    with pytest.raises(PeerFailed, match=r'relation "j" does not exist'):
        bench.drain(10, timeout=60)
    bench.store.close()
