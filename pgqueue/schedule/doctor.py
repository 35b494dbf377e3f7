"""What is wrong with this queue, looked at from the database: one finding for each check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.limits import check_limits
from pgqueue.schedule.deeds import list_problems

Sql = Mapping[str, str]

DAYS_AHEAD = 3
"""Partitions for fewer days than this are worth a warning: without one no job can end."""

WHAT_TO_DO = {
    "not-ticking": "its definition is at fault: pgq schedule list shows the error",
    "late": "nobody ticks: start a worker without --no-scheduler, or run pgq schedule tick",
    "failing": "pgq schedule history shows since when; pgq jobs show tells why",
    "stuck": "pgq jobs why tells what its job waits for",
}


class Level(StrEnum):
    """How bad a finding is."""

    OK = auto()
    WARNING = auto()
    ERROR = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and the next step."""

    check: str
    level: Level
    message: str
    advice: str = ""


def examine(sql: Sql) -> Steps[list[Finding]]:
    """All checks in their order; a check that finds nothing wrong says so in one finding."""
    findings: list[Finding] = []
    for check in (_workers, _partitions, _snapshots, _tasks, _limits, _chores, _schedules):
        findings += yield from check(sql)
    return findings


def _workers(sql: Sql) -> Steps[list[Finding]]:
    ((living, silent, orphaned),) = yield Statement(sql["count_dead_workers"])
    if orphaned:
        message = f"{orphaned} jobs run on workers that do not beat any more"
        advice = "living workers take them back within seconds: start one if there is none"
        return [Finding("workers", Level.ERROR, message, advice)]
    if not living:
        return [Finding("workers", Level.WARNING, "no worker lives", "start one: pgq worker")]
    ghosts = f", {silent} silent" if silent else ""
    return [Finding("workers", Level.OK, f"{living} live{ghosts}")]


def _partitions(sql: Sql) -> Steps[list[Finding]]:
    rows = yield Statement(sql["count_days_ahead"])
    days = min(count for _, count in rows)
    if days < DAYS_AHEAD:
        message = f"finished jobs have partitions for {days} days ahead"
        advice = "their owner runs pgq prune; a job that ends on a day without one cannot be stored"
        return [Finding("partitions", Level.ERROR, message, advice)]
    return [Finding("partitions", Level.OK, f"made for {days} days ahead")]


def _snapshots(sql: Sql) -> Steps[list[Finding]]:
    rows = yield Statement(sql["find_old_snapshots"])
    advice = "end it: dead rows pile up, and everything gets slower"
    return [
        Finding("snapshots", Level.WARNING, f"{what} holds an old snapshot{_since(age)}", advice)
        for what, age in rows
    ] or [Finding("snapshots", Level.OK, "nobody holds an old one")]


def _since(age: float | None) -> str:
    return "" if age is None else f", for {age / 60:.0f} minutes"


def _tasks(sql: Sql) -> Steps[list[Finding]]:
    rows = yield Statement(sql["list_unknown_tasks"])
    advice = "start a worker of the app that has the task, or delete the jobs"
    return [
        Finding(
            "tasks",
            Level.WARNING,
            f"{jobs} jobs of task {task!r} are due in queue {queue!r} and no worker knows it",
            advice,
        )
        for task, queue, jobs in rows
    ] or [Finding("tasks", Level.OK, "all that is due is known to a worker")]


def _limits(sql: Sql) -> Steps[list[Finding]]:
    found = [
        Finding(
            "limits",
            Level.ERROR,
            f"limit {one.name!r} is exceeded: {one.found} of {one.allowed}"
            + (f" starts in {one.per:g} s" if one.per else " at once"),
            "pgq limits check shows by whom; this should not be: please report it",
        )
        for one in (yield from check_limits(sql))
    ]
    for name, job_id, waiting in (yield Statement(sql["list_held_orders"])):
        message = f"{waiting} jobs of {name!r} wait: job {job_id} before them failed for good"
        advice = f"pgq jobs retry {job_id}, or pgq jobs delete {job_id}"
        found.append(Finding("limits", Level.WARNING, message, advice))
    found += [_standing(*row) for row in (yield Statement(sql["list_standing_lines"]))]
    ((unseen,),) = yield Statement(sql["count_unseen"])
    if unseen:
        message = f"{unseen} jobs with limits came over 5 minutes ago, and no worker lets them in"
        advice = "start a worker, or look at the log of those that run for what fails"
        found.append(Finding("limits", Level.WARNING, message, advice))
    return found or [Finding("limits", Level.OK, "none is exceeded, and every line moves")]


def _standing(
    name: str, waiting: int, running: int, holders: list[int] | None, seconds: float | None
) -> Finding:
    if running == 0:
        message = f"limit {name!r} lets nobody in, and {waiting} jobs wait"
        return Finding("limits", Level.WARNING, message, f"pgq limits reset {name}, or set another")
    ids = ", ".join(str(job_id) for job_id in holders or ())
    message = (
        f"{waiting} jobs wait for limit {name!r}, whose {running} slots have been held for "
        f"{(seconds or 0) / 60:.0f} minutes by jobs {ids}"
    )
    advice = "pgq jobs show tells what they do; a timeout ends a handler that hangs"
    return Finding("limits", Level.WARNING, message, advice)


def _chores(sql: Sql) -> Steps[list[Finding]]:
    rows = yield Statement(sql["list_failed_chores"])
    return [
        Finding("chores", Level.ERROR, f"chore {name!r} failed: {error}", "it is tried again")
        for name, error in rows
    ] or [Finding("chores", Level.OK, "none failed at its last turn")]


def _schedules(sql: Sql) -> Steps[list[Finding]]:
    rows = yield from list_problems(sql)
    found = [
        Finding("schedules", _level(problem), _said(row, problem), WHAT_TO_DO[problem])
        for row in rows
        for problem in row["problems"]
    ]
    return found or [Finding("schedules", Level.OK, "all are on time")]


def _level(problem: str) -> Level:
    return Level.WARNING if problem in ("late", "stuck") else Level.ERROR


def _said(row: Mapping[str, Any], problem: str) -> str:
    name = f"schedule {row['name']!r}"
    if problem == "not-ticking":
        return f"{name} could not be ticked {row['failures']} times: {row['last_error']}"
    if problem == "late":
        return f"{name} has been due for {row['late_by'].total_seconds():.0f} s"
    if problem == "failing":
        return f"{name}: its last {row['failed_in_a_row']} windows failed"
    return f"{name} has had a window open since {row['open_since'].isoformat(timespec='seconds')}"
