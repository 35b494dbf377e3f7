"""Why does this job not run? Causes in the order in which they have to go away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pgqueue.db.run import Statement, Steps
from pgqueue.job import Json

Sql = Mapping[str, str]
TRIES = 2
_ENDED = {"completed": "completed", "failed": "failed", "cancelled": "was cancelled"}
LISTED_HOLDERS = 20
"""Jobs that explain_line names."""

COUNTED = 10_000
"""Jobs before this one that are counted; from there on it is "at least"."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason: a word for machines, a sentence for people, and the facts as JSON."""

    cause: str
    message: str
    details: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A live job as `explain_job` tells of it."""

    task: str
    queue: str
    priority: int
    state: str
    run_at: datetime
    attempt: int
    max_attempts: int
    worker_id: int | None
    started_at: datetime | None
    cancel_requested_at: datetime | None
    expires_at: datetime | None
    crashes: int
    suspect: bool
    blocked_on: str | None
    workflow_id: int | None
    now: datetime
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    host: str | None
    pid: int | None
    heartbeat_at: datetime | None
    worker_lives: bool
    may_have_started: bool | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A finished job as `explain_ending` tells of it."""

    state: str
    finished_at: datetime
    attempt: int
    reason: str | None
    message: str | None
    unique_key: str | None
    crashes: int
    holder: int | None


@dataclass(frozen=True, slots=True)
class _Workers:
    """The live workers as `count_workers` tells of them."""

    live: int
    listening: int
    knowing: int
    slots: int
    busy: int


def why(sql: Sql, job_id: int, *, timeout: float, poll_interval: float) -> Steps[list[Cause]]:
    """Why a job does not run, at least one cause; `ready` when nothing keeps it from running.

    A worker counts as live that beat within `timeout` seconds; `poll_interval` is how often it
    looks for work, in seconds.
    """
    for _ in range(TRIES):
        live = yield Statement(sql["explain_job"], {"id": job_id, "timeout": timeout})
        if live:
            job = _Waiting(*live[0])
            if job.state == "running":
                return _of_running(job)
            return (yield from _of_waiting(sql, job_id, job, timeout, poll_interval))
        ended = yield Statement(sql["explain_ending"], {"id": job_id})
        if ended:
            return _of_finished(_Ended(*ended[0]))
        # Retried or ended between the two looks, perhaps.
    message = f"job {job_id} does not exist, or retention has dropped it"
    return [Cause("not-found", message, {"id": job_id})]


def _of_finished(job: _Ended) -> list[Cause]:
    at = _at(job.finished_at)
    completed = job.state == "completed"
    told = "" if completed else ": ".join(part for part in (job.reason, job.message) if part)
    details = {
        "state": job.state,
        "finished_at": at,
        "attempt": job.attempt,
        "reason": None if completed else job.reason,
    }
    message = f"it {_ENDED[job.state]} at {at}{f' ({told})' if told else ''}"
    causes = [Cause("finished", message, details)]
    if job.reason == "crashed":
        message = f"quarantined: {job.crashes} workers died while they ran it"
        causes.append(Cause("quarantined", message, {"crashes": job.crashes}))
    if job.holder is not None:
        message = f"its unique key is held by job {job.holder}: a retry would be refused"
        details = {"unique_key": job.unique_key, "job_id": job.holder}
        causes.append(Cause("unique-key", message, details))
    return causes


def _of_running(job: _Waiting) -> list[Cause]:
    where = f"worker {job.worker_id}" + (f" ({job.host}, pid {job.pid})" if job.host else "")
    details = {
        "worker_id": job.worker_id,
        "host": job.host,
        "pid": job.pid,
        "started_at": _at(job.started_at),
        "attempt": job.attempt,
    }
    said = "runs" if job.may_have_started is not False else "is claimed and waits for a free slot"
    message = f"it {said} on {where} since {_at(job.started_at)}, attempt {job.attempt}"
    causes = [Cause("running", message, details)]
    if not job.worker_lives:
        message = f"{where} does not beat any more: the job will be rescued"
        causes.append(Cause("worker-died", message, {"heartbeat_at": _at(job.heartbeat_at)}))
    return causes + _of_cancel(job)


def _of_cancel(job: _Waiting) -> list[Cause]:
    if job.cancel_requested_at is None:
        return []
    at = _at(job.cancel_requested_at)
    message = f"it was asked to stop at {at}, and ends when its worker has seen that"
    return [Cause("cancel-requested", message, {"cancel_requested_at": at})]


def _of_waiting(
    sql: Sql, job_id: int, job: _Waiting, timeout: float, poll_interval: float
) -> Steps[list[Cause]]:
    if job.run_at > job.now:
        step = yield Statement(sql["find_open_step"], {"id": job_id})
        if step:
            return [*_of_cancel(job), _of_step(*step[0])]
    params = {"queue": job.queue, "task": job.task, "timeout": timeout}
    rows = yield Statement(sql["count_workers"], params)
    workers = _Workers(*rows[0])
    parents = yield from _of_parents(sql, job_id, job)
    causes = [*_of_cancel(job), *parents, *_of_row(job), *_of_workers(job, workers)]
    if job.state == "blocked":
        causes += yield from _of_block(sql, job_id, job)
    if job.suspect:
        causes.append(_of_suspect(job))
    if any(cause.cause != "suspect" for cause in causes):
        return causes
    params = {"queue": job.queue, "priority": job.priority, "run_at": job.run_at, "id": job_id}
    rows = yield Statement(sql["count_before"], params)
    in_lane, above = rows[0]
    return [*causes, _of_others(job, workers, in_lane, above, poll_interval)]


def _of_parents(sql: Sql, job_id: int, job: _Waiting) -> Steps[list[Cause]]:
    """Whom a node of a workflow waits for; the first ten by name."""
    if job.state != "waiting" or job.workflow_id is None:
        return []
    rows = yield Statement(sql["find_open_parents"], {"id": job_id})
    parents = [{"name": name, "job_id": parent, "state": state} for name, parent, state, _ in rows]
    count = rows[0][3] if rows else 0
    details = {"workflow_id": job.workflow_id, "open_parents": count, "parents": parents}
    where = f"of workflow {job.workflow_id}"
    if not rows:
        message = f"all its parents {where} have ended: the next pass lets it go"
        return [Cause("waiting", message, details)]
    named = ", ".join(
        f"{name} (job {parent}, {state or 'ended just now'})" for name, parent, state, _ in rows
    )
    more = f" and {count - len(rows):,} more" if count > len(rows) else ""
    parents_are = "its parent" if count == 1 else f"{count:,} of its parents"
    message = f"it waits for {parents_are} {where}: {named}{more}"
    return [Cause("waiting", message, details)]


def _of_row(job: _Waiting) -> list[Cause]:
    causes = []
    if job.expires_at is not None and job.expires_at <= job.now:
        at = _at(job.expires_at)
        message = f"it expired at {at}: it ends as cancelled without having run"
        causes.append(Cause("expired", message, {"expires_at": at}))
    if job.paused:
        causes.append(_of_pause(job))
    if job.state == "waiting" and job.workflow_id is None:
        message = (
            "it waits for an earlier window of its schedule, for the schedule it runs after, or "
            "for its turn in a backfill"
        )
        causes.append(Cause("waiting", message, {"workflow_id": None}))
    if job.run_at > job.now:
        causes.append(_of_future(job))
    return causes


def _of_step(
    kind: str, name: str, wake_at: datetime | None, event: str | None, key: str | None
) -> Cause:
    until = _at(wake_at)
    if kind == "sleep":
        return Cause("sleeps", f"it sleeps until {until}", {"step": name, "until": until})
    at_most = f", until {until} at most" if until else ""
    message = f"it waits for event {event!r} of {key!r}{at_most}: pgq.emit wakes it"
    return Cause("waits", message, {"step": name, "event": event, "key": key, "until": until})


@dataclass(frozen=True, slots=True)
class _Line:
    """The limit a job waits for as `explain_line` tells of it."""

    running: int | None
    starts: int | None
    per: float | None
    until: datetime | None
    holders: list[int]
    before: int
    of_others: int
    held_by: int | None
    tenant: str | None
    first: int | None


def _of_block(sql: Sql, job_id: int, job: _Waiting) -> Steps[list[Cause]]:
    place = job.blocked_on or ""
    if place == "@new":
        message = "it has limits and is let in, or finds its line, within about a second"
        return [Cause("admission", message, {"limits_checked": False})]
    # Why a queue or a worker keeps it back, or its time, is said without this.
    rows = () if place.startswith("@") else (yield Statement(sql["explain_line"], {"id": job_id}))
    if not rows:
        return []
    line = _Line(*rows[0])
    details = {
        "limit": place,
        "running": line.running,
        "starts": line.starts,
        "per": line.per,
        "holders": line.holders,
        "before": line.before,
        "of_others": line.of_others,
        "held_by": line.held_by,
        "first": line.first,
    }
    if place.startswith("ordered:"):
        return [_of_order(place.removeprefix("ordered:"), line, details)]
    return [Cause("blocked", f"{_held(place, line)}; {_stands(line)}", details)]


def _of_order(key: str, line: _Line, details: Mapping[str, Json]) -> Cause:
    if line.held_by is not None:
        message = (
            f"job {line.held_by} failed and holds the order of {key!r}: "
            f"pgq jobs retry {line.held_by}, or pgq jobs delete {line.held_by}"
        )
        return Cause("order-held", message, details)
    first = ""
    if line.holders:
        first = f", job {line.holders[0]} is at it"
    elif line.before:
        first = f", job {line.first} first: pgq jobs why {line.first}"
    message = f"jobs of {key!r} run one after another: {line.before} wait before it{first}"
    return Cause("order", message, details)


def _held(name: str, line: _Line) -> str:
    ids = ", ".join(str(job_id) for job_id in line.holders)
    if line.running is not None and len(line.holders) >= min(line.running, LISTED_HOLDERS):
        more = "" if line.running <= LISTED_HOLDERS else ", …"
        holders = f" are held by jobs {ids}{more}" if ids else " are all there are"
        return f"limit {name!r} has no room: its {line.running} slots{holders}"
    if line.starts is not None:
        return f"limit {name!r} lets {line.starts} jobs start in {line.per:g} s"
    return f"it waits for limit {name!r}, which has room: its turn comes within about a second"


def _stands(line: _Line) -> str:
    whose = "" if line.tenant is None else f" of tenant {line.tenant!r}"
    others = f"; {line.of_others} of other tenants take turns with them" if line.of_others else ""
    return f"{line.before} jobs{whose} stand before it in the line{others}"


def _of_pause(job: _Waiting) -> Cause:
    who = f" by {job.paused_by}" if job.paused_by else ""
    since = f" since {_at(job.paused_at)}" if job.paused_at else ""
    reason = f" ({job.pause_reason})" if job.pause_reason else ""
    message = f"queue {job.queue!r} is paused{who}{since}{reason}: pgq queues resume {job.queue}"
    details = {
        "queue": job.queue,
        "paused_by": job.paused_by,
        "paused_at": _at(job.paused_at),
        "reason": job.pause_reason,
    }
    return Cause("paused-queue", message, details)


def _of_future(job: _Waiting) -> Cause:
    seconds = round((job.run_at - job.now).total_seconds(), 3)
    again = f", after {job.attempt} of {job.max_attempts} tries" if job.attempt else ""
    message = f"its time is {_at(job.run_at)}, in {seconds:g} s{again}: pgq jobs retry runs it now"
    return Cause("future", message, {"run_at": _at(job.run_at), "seconds": seconds})


def _of_workers(job: _Waiting, workers: _Workers) -> list[Cause]:
    if not workers.listening:
        others = f" ({workers.live} take from other queues)" if workers.live else ""
        message = f"no live worker takes from queue {job.queue!r}{others}"
        return [Cause("no-worker", message, {"queue": job.queue, "live_workers": workers.live})]
    if not workers.knowing:
        message = (
            f"none of the {workers.listening} live workers of queue {job.queue!r} knows the task "
            f"{job.task!r}: start one whose app has it"
        )
        details = {"task": job.task, "queue": job.queue, "listening": workers.listening}
        return [Cause("unknown-task", message, details)]
    return []


def _of_suspect(job: _Waiting) -> Cause:
    message = (
        "it was in the hands of a worker that died: it runs without prefetch, one such job at a "
        f"time per worker ({job.crashes} crashes counted against it)"
    )
    return Cause("suspect", message, {"crashes": job.crashes})


def _of_others(
    job: _Waiting, workers: _Workers, in_lane: int, above: int, poll_interval: float
) -> Cause:
    before = in_lane + above
    details = {
        "before": before,
        "in_lane": in_lane,
        "higher_priority": above,
        "slots": workers.slots,
        "busy": workers.busy,
    }
    if before == 0 and workers.busy < workers.slots:
        message = f"it is due; a worker should take it within {poll_interval:g} s"
        return Cause("ready", message, {**details, "within_seconds": poll_interval})
    many = f"at least {before}" if max(in_lane, above) >= COUNTED else str(before)
    message = (
        f"{many} due jobs of queue {job.queue!r} stand before it, "
        f"and {workers.busy} of {workers.slots} slots are busy"
    )
    return Cause("behind-others", message, details)


def _at(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
