"""However many schedulers tick at once, each window is there once, with one job."""

from __future__ import annotations

from datetime import timedelta

from processes import Processes

from pgqueue import PgQueue
from proving import Clock, rows, value

TICKERS = 8
ROUNDS = 50


def _fire(window_start: str, window_end: str) -> None: ...


def _schedules(database: str) -> None:
    app = PgQueue(database)
    fire = app.task(name="fire")(_fire)
    for name, cron in (("hourly", "0 * * * *"), ("quarters", "*/15 * * * *"), ("bad", "0 * * * *")):
        app.put_schedule(name, cron=cron, task=fire)
    app.close()
    rows(database, "update pgqueue.schedules set cron = 'never' where name = 'bad'")


def _check(database: str, rounds: int) -> None:
    found = rows(
        database,
        "select name, count(*), count(distinct window_start), count(jobs.id) "
        "from pgqueue.windows join pgqueue.schedules on schedules.id = schedule_id "
        "left join pgqueue.jobs on jobs.id = windows.job_id group by 1 order by 1",
    )
    assert found == [("hourly", *[rounds] * 3), ("quarters", *[4 * rounds] * 3)]
    assert value(database, "select count(*) from pgqueue.jobs") == 5 * rounds


def test_eight_tickers_at_once_insert_each_window_and_its_job_once(
    database: str, processes: Processes
) -> None:
    clock = Clock(database)
    _schedules(database)
    tickers = [processes.python(database, "chaos_app.py") for _ in range(TICKERS)]
    for ticker in tickers:
        assert ticker.stdout
        assert ticker.stdout.readline() == "ready\n", processes.said
    shares = set()
    for _ in range(ROUNDS):
        clock.set(clock.at + timedelta(hours=1))
        for ticker in tickers:
            assert ticker.stdin
            ticker.stdin.write("tick\n")
            ticker.stdin.flush()
        counts = [int(ticker.stdout.readline()) for ticker in tickers if ticker.stdout]
        assert sum(counts) == 5
        shares.add(tuple(counts))
    assert len(shares) > 1, "one process did it all: nobody raced"
    _check(database, ROUNDS)


def test_the_command_itself_run_by_eight_processes_at_once_does_so_too(
    database: str, processes: Processes
) -> None:
    clock = Clock(database)
    _schedules(database)
    clock.set(clock.at + timedelta(hours=2))
    tickers = [processes.pgq(database, "schedule", "tick") for _ in range(TICKERS)]
    said = [ticker.communicate(timeout=60)[0] for ticker in tickers]
    assert [ticker.returncode for ticker in tickers] == [0] * TICKERS, processes.said
    assert sum(int(line.split()[0]) for line in said) == 10
    _check(database, 2)
