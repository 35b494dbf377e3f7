"""`pgq bench`: figures of this database, and no trace of them afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from supervising import is_gone

from proving import until, value

PGQ = Path(sys.executable).with_name("pgq")
Run = Callable[..., Any]
THERE = "select to_regnamespace('pgqueue_bench') is not null"
AT_WORK = "select to_regclass('pgqueue_bench.workers') is not null"
PIDS = "select array_agg(pid) from pgqueue_bench.workers"
UNITS = {
    "enqueue to start, p50": "ms",
    "enqueue to start, p99": "ms",
    "enqueue, one by one": "jobs/s",
    "enqueue_many": "jobs/s",
    "WAL, enqueue_many": "bytes/job",
    "drain": "jobs/s",
    "WAL, drain": "bytes/job",
    "dead rows after it": "rows",
    "drain, held snapshot, round 3": "jobs/s",
    "WAL, drain, held snapshot, round 3": "bytes/job",
    "drain, last round of the clean one": "ratio",
}


def test_it_measures_and_leaves_nothing_behind(
    rows: Callable[[], int], pgq_process: Run, database: str
) -> None:
    said = pgq_process("bench", "--jobs", "60", "--seconds", "20", "--held-snapshot", "--json")
    found = {one["measure"]: one for one in json.loads(said.out)}
    assert (said.code, [one["error"] for one in found.values() if one["error"]]) == (0, [])
    assert {name: found[name]["unit"] for name in UNITS} == UNITS
    assert all(found[name]["value"] > 0 for name, unit in UNITS.items() if unit != "rows")
    assert found["enqueue_many"]["jobs"] == 60
    assert found["drain"]["jobs"] == 60 + found["enqueue, one by one"]["jobs"]
    assert [one["held_snapshot"] for one in found.values()].count(True) == 16
    # Dead rows that a snapshot holds stay, whoever vacuums.
    assert found["dead rows after it, held snapshot, round 3"]["value"] >= 180
    assert said.err.startswith("pgq bench: this loads database 'test_")
    assert rows() == 0
    assert not value(database, THERE)


def test_a_figure_that_could_not_be_had_is_told_and_fails_the_command(
    rows: Callable[[], int], pgq_command: Run, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No number of jobs is too many for every machine.
    bench = import_module("pgqueue.cli.benching").Bench
    waited = bench._wait_until_gone
    monkeypatch.setattr(bench, "_wait_until_gone", lambda *how: waited(*how) and False)
    said = pgq_command("bench", "--jobs", "500", "--seconds", "3", "--json")
    assert said.code == 1
    errors = [row["error"] or "" for row in json.loads(said.out)]
    assert any("were drained in time: fewer --jobs, or more --seconds" in error for error in errors)
    assert not value(database, THERE)


@pytest.fixture
def bench(rows: Callable[[], int], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A bench that takes its time."""
    with (folder / "bench.log").open("w") as log:
        process = subprocess.Popen(
            [PGQ, "bench", "--seconds", "600"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    yield process
    process.kill()
    process.wait()


def workers_of(database: str) -> list[int]:
    pids: list[int] = until(lambda: value(database, AT_WORK) and value(database, PIDS))
    return pids


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_it_cleans_up_first(
    number: signal.Signals, code: int, bench: subprocess.Popen[bytes], database: str
) -> None:
    pids = workers_of(database)
    bench.send_signal(number)
    assert bench.wait(30) == code
    assert all(map(is_gone, pids))
    assert not value(database, THERE)


def test_a_killed_bench_takes_its_workers_along_and_its_tables_are_cleaned_by_hand(
    bench: subprocess.Popen[bytes], database: str, pgq_process: Run
) -> None:
    pids = workers_of(database)
    bench.kill()
    bench.wait()
    until(lambda: all(map(is_gone, pids)))
    refused = pgq_process("bench", "--jobs", "1")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[-1] == (
        "pgq: schema 'pgqueue_bench' is there already: another pgq bench runs, or "
        "`pgq bench --clean` drops it"
    )
    cleaned = pgq_process("bench", "--clean")
    assert (cleaned.code, cleaned.out) == (0, "schema pgqueue_bench is dropped\n")
    assert not value(database, THERE)
    again = pgq_process("bench", "--clean")
    assert (again.code, again.out) == (0, "schema pgqueue_bench is not there\n")


def test_a_schema_that_others_use_is_neither_filled_nor_dropped(
    rows: Callable[[], int], pgq_process: Run, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_SCHEMA", "pgqueue_bench")
    assert pgq_process("migrate").code == 0
    monkeypatch.delenv("PGQUEUE_SCHEMA")
    assert pgq_process("bench", "--jobs", "1").code == 1
    said = pgq_process("bench", "--clean")
    line = "pgq: schema 'pgqueue_bench' was not made by a bench: it is not dropped\n"
    assert (said.code, said.out, said.err) == (1, "", line)
    assert value(database, THERE)
