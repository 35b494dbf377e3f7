"""The clock is the database's: a process whose own clock is wrong by an hour changes nothing."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgqueue import PgQueue
from proving import rows

HOURLY = "0 * * * *"
SPANS = (
    "select schedule, window_start, window_end, mode, state "
    "from pgqueue.window_status order by schedule, window_start"
)
JOBS = "select task, payload, run_at <= pgqueue.clock() from pgqueue.all_jobs order by 2::text"

# Every way in which Python code can learn the time; monotonic ones show no date.
WRONG_CLOCK = """
import datetime, sys, time
shift = float(sys.argv.pop(1))
right = {name: getattr(time, name) for name in ("time", "time_ns", "localtime", "gmtime")}
time.time = lambda: right["time"]() + shift
time.time_ns = lambda: right["time_ns"]() + int(shift * 1e9)
time.localtime = lambda at=None: right["localtime"](time.time() if at is None else at)
time.gmtime = lambda at=None: right["gmtime"](time.time() if at is None else at)
class Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, right_datetime)
right_datetime = datetime.datetime
class Wrong(right_datetime, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return right_datetime.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return right_datetime.utcfromtimestamp(time.time())
datetime.datetime = Wrong
assert abs(Wrong.now().timestamp() - right["time"]() - shift) < 5
"""
WORK = """
import asyncio
from pgqueue import PgQueue
pgq = PgQueue()
@pgq.task
def fire(window_start: datetime.datetime, window_end: datetime.datetime) -> None: ...
pgq.tick()
asyncio.run(pgq.worker(burst=True).run())
pgq.tick()
pgq.close()
"""


def _run_with_wrong_clock(url: str, folder: Path, shift: float) -> None:
    script = folder / "wrong_clock.py"
    script.write_text(WRONG_CLOCK + WORK)
    subprocess.run(
        [sys.executable, script, str(shift)],
        check=True,
        env={"PGQUEUE_DATABASE_URL": url, "PATH": ""},
        cwd=folder,
        timeout=60,
    )


def _fire(window_start: datetime, window_end: datetime) -> None: ...


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong_by_an_hour_inserts_and_runs_just_what_is_due(
    database: str, pgq: PgQueue, tmp_path: Path, hours: int
) -> None:
    fire = pgq.task(name="fire")(_fire)
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    pgq.put_schedule("late", cron=HOURLY, task=fire, catch_up="none")
    # In the middle of an hour by the database: an hour off is a window more or less.
    real: Any = rows(database, "select date_trunc('hour', now())")[0][0]
    shown = real + timedelta(minutes=30)
    for name, kind in (("clock", "stable"), ("clock_now", "volatile")):
        rows(
            database,
            f"create or replace function pgqueue.{name}() returns timestamptz "
            f"language sql {kind} as $$select timestamptz '{shown.isoformat()}'$$",
        )
    rows(database, "update pgqueue.schedules set next_run_at = %s", [real - timedelta(hours=1)])
    _run_with_wrong_clock(database, tmp_path, hours * 3600.0)
    hour = timedelta(hours=1)
    assert rows(database, SPANS) == [
        ("s", real - 2 * hour, real - hour, "window", "completed"),
        ("s", real - hour, real, "window", "completed"),
    ]
    assert all(is_due for *_, is_due in rows(database, JOBS))
    fires = {row["next_run_at"] for row in pgq.list_schedules()}
    assert fires == {real + hour}
