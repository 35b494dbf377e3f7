"""Bring finished jobs back into their queues, under their ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import psycopg

from pgqueue.db.run import Batch, Statement, Steps
from pgqueue.engine.filters import JobFilter
from pgqueue.engine.listing import find_row, list_jobs
from pgqueue.engine.operate import Operator, batches, patiently
from pgqueue.errors import (
    ConfigError,
    PayloadInvalid,
    TaskUnknown,
    UniqueKeyTaken,
    WrongState,
)
from pgqueue.job import Json, storable_json

Sql = Mapping[str, str]
Key = tuple[int, datetime]
"""A finished row: the job's id and when it ended. A job that was retried and ended again has
another key, so an old request cannot retry it a second time."""

Edit = Callable[[str, Mapping[str, Json]], Mapping[str, Json]]
"""Makes the new payload of a task's name and the old one; raises PayloadInvalid, TaskUnknown."""

RETRYABLE = ("failed", "cancelled")
FINISHED = ("completed", *RETRYABLE)
_VERBS = {RETRYABLE: "retried", FINISHED: "replayed"}
SAMPLE = 10
_BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the jobs, by id.

    `retried` came back from finished_jobs; `hurried` waited for their time and are due now; `live`
    were left alone, as they are due or run already; `refused` says why for each id; `missing` do
    not exist (any more).
    """

    retried: tuple[int, ...] = ()
    hurried: tuple[int, ...] = ()
    live: tuple[int, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a finished job did not come back; `holder` is the job that has its unique key."""

    reason: str
    holder: int | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a retry by this filter would take: how many, and the newest of them as mappings."""

    count: int
    sample: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Revival:
    """How finished jobs come back: by whom, under which name, with how many tries by task."""

    operator: Operator
    tries: Mapping[str, int]
    action: str = "retry"
    states: tuple[str, ...] = RETRYABLE
    payloads: Mapping[int, str] = field(default_factory=dict)
    details: Mapping[str, Json] = field(default_factory=dict)
    from_start: bool = False


def retry_jobs(
    sql: Sql,
    ids: Collection[int],
    operator: Operator,
    tries: Mapping[str, int],
    *,
    from_start: bool = False,
) -> Steps[Retried]:
    """Retry jobs by id: failed and cancelled ones come back, those that wait for a time run now.

    What they have behind them as durable steps is kept, unless `from_start`. In batches of 500,
    each its own transaction. Doing it twice is doing it once.
    """
    places = yield from _find_places(sql, sorted(set(ids)))
    later = [job_id for job_id, place in places.items() if place.is_later]
    hurried = yield from _hurry(sql, later, operator)
    keys = [
        (job_id, place.finished_at)
        for job_id, place in places.items()
        if place.finished_at is not None and place.state in RETRYABLE
    ]
    revival = Revival(operator, tries, details=_from_start(from_start), from_start=from_start)
    became = yield from _revive(sql, keys, revival)
    done = yield from _reported(sql, keys, became)
    refused = {
        job_id: "it completed: replay it to run it again"
        for job_id, place in places.items()
        if place.state == "completed"
    }
    live = [
        job_id
        for job_id, place in places.items()
        if place.finished_at is None and job_id not in hurried
    ]
    return Retried(
        retried=done.retried,
        hurried=hurried,
        live=tuple(sorted([*live, *done.live])),
        refused={**refused, **done.refused},
        missing=tuple(sorted([*(set(ids) - set(places)), *done.missing])),
    )


def retry_matching(
    sql: Sql,
    wanted: JobFilter,
    operator: Operator,
    tries: Mapping[str, int],
    limit: int | None = None,
    *,
    from_start: bool = False,
) -> Steps[Retried]:
    """Retry the failed and cancelled jobs that fit, oldest first, at most `limit`."""
    keys = yield from _find_finished(sql, wanted, limit, RETRYABLE)
    details = {"filter": wanted.given, **_from_start(from_start)}
    revival = Revival(operator, tries, details=details, from_start=from_start)
    became = yield from _revive(sql, keys, revival)
    return (yield from _reported(sql, keys, became))


def preview_retry(
    sql: Sql,
    wanted: JobFilter,
    limit: int | None = None,
    *,
    allowed: tuple[str, ...] = RETRYABLE,
) -> Steps[Preview]:
    """What a retry (or with all of FINISHED `allowed` a replay) would take, without doing it."""
    keys = yield from _find_finished(sql, wanted, limit, allowed)
    if not keys:
        return Preview(0, [])
    sample = yield from list_jobs(sql, _narrowed(wanted, allowed), limit=SAMPLE)
    return Preview(len(keys), sample)


def replay_matching(
    sql: Sql,
    wanted: JobFilter,
    edit: Edit,
    operator: Operator,
    *,
    tries: Mapping[str, int],
    limit: int | None = None,
) -> Steps[Retried]:
    """Replay the finished jobs that fit, oldest first; completed ones only if asked for by state.

    One whose new payload does not fit its task is refused, and the others go on.
    """
    keys = yield from _find_finished(sql, wanted, limit, FINISHED)
    became: dict[int, Refusal | None] = {}
    for batch in batches(keys):
        rows = yield Statement(sql["find_payloads"], _keyed(batch))
        payloads: dict[int, str] = {}
        for job_id, task, payload in rows:
            try:
                payloads[job_id] = storable_json(edit(task, payload))
            except (PayloadInvalid, TaskUnknown) as error:
                became[job_id] = Refusal(str(error))
        details = {"filter": wanted.given}
        revival = Revival(operator, tries, "replay", FINISHED, payloads, details, from_start=True)
        fit = [key for key in batch if key[0] in payloads]
        became |= yield from _revive(sql, fit, revival)
    return (yield from _reported(sql, keys, became))


def replay_job(
    sql: Sql,
    job_id: int,
    edit: Edit,
    operator: Operator,
    tries: Mapping[str, int],
) -> Steps[None]:
    """Run a finished job again, completed or not, with what `edit` makes of its payload.

    `edit` is given the task's name and the payload, and may raise. Raises JobNotFound, WrongState
    for a live job and UniqueKeyTaken.
    """
    row = yield from find_row(sql, job_id)
    if row["finished_at"] is None:
        raise WrongState(job_id, row["status"], "only finished jobs are replayed: cancel it first")
    payload = edit(row["task"], row["payload"])
    # Names only: what is in a payload is nobody's business who reads the audit log.
    details = {"changed": _changed(row["payload"], payload)}
    payloads = {job_id: storable_json(payload)}
    revival = Revival(operator, tries, "replay", FINISHED, payloads, details, from_start=True)
    became = yield from _revive(sql, [(job_id, row["finished_at"])], revival)
    if job_id not in became:
        raise WrongState(job_id, "in another session's hands", "try again")
    if refusal := became[job_id]:
        raise UniqueKeyTaken(
            f"job {job_id} cannot come back: {refusal.reason}", refusal.holder or 0
        )


def merged(old: Json, patch: Json) -> Json:
    """`old` with the changes of a JSON merge patch (RFC 7396): objects merge, null removes."""
    if not isinstance(patch, Mapping):
        return patch
    kept = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = merged(kept.get(name), value)
    return kept


def _from_start(asked: bool) -> dict[str, Json]:  # noqa: FBT001 - what the audit log says of it
    return {"from_start": True} if asked else {}


def _changed(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    absent = object()
    return sorted(n for n in {*old, *new} if old.get(n, absent) != new.get(n, absent))


@dataclass(frozen=True, slots=True)
class _Place:
    state: str
    is_later: bool
    finished_at: datetime | None


def _find_places(sql: Sql, ids: Sequence[int]) -> Steps[dict[int, _Place]]:
    places: dict[int, _Place] = {}
    for batch in batches(ids):
        rows = yield Statement(sql["find_places"], {"ids": list(batch)})
        for job_id, state, is_later, finished_at in rows:
            places[job_id] = _Place(state, is_later and state in {"queued", "blocked"}, finished_at)
    return places


def _narrowed(wanted: JobFilter, allowed: tuple[str, ...]) -> JobFilter:
    """The filter, for finished jobs; raises ConfigError when it asks for others."""
    asked = {*wanted.states, *([wanted.status] if wanted.status else [])}
    others = sorted(asked - set(allowed))
    if others:
        raise ConfigError(
            f"{others[0]} jobs are not {_VERBS[allowed]} by filter, only {' and '.join(allowed)} "
            "ones: name a job by its id"
        )
    states = tuple(state for state in allowed if state in (asked or RETRYABLE))
    if wanted.states and wanted.status and wanted.status not in wanted.states:
        states = ()
    return replace(wanted, states=states, status=None)


def _find_finished(
    sql: Sql, wanted: JobFilter, limit: int | None, allowed: tuple[str, ...]
) -> Steps[list[Key]]:
    narrowed = _narrowed(wanted, allowed)
    if not narrowed.states:
        return []
    rows: list[Key] = yield Statement(sql["find_retryable"], {**narrowed.params, "n": limit})
    return rows


def _hurry(sql: Sql, ids: Sequence[int], operator: Operator) -> Steps[tuple[int, ...]]:
    hurried: list[int] = []
    for batch in batches(ids):
        params = {"ids": list(batch), **operator.params}
        rows = yield from patiently(sql, Statement(sql["hurry_jobs"], params))
        hurried += [job_id for (job_id,) in rows]
    return tuple(sorted(hurried))


def _revive(sql: Sql, keys: Sequence[Key], revival: Revival) -> Steps[dict[int, Refusal | None]]:
    """For each id that was met: None when it came back, else why not."""
    became: dict[int, Refusal | None] = {}
    for batch in batches(keys):
        became |= yield from _revive_batch(sql, batch, revival)
    return became


def _revive_batch(
    sql: Sql, keys: Sequence[Key], revival: Revival
) -> Steps[dict[int, Refusal | None]]:
    statements = (
        Statement(sql["wait_for_keys"]),
        # A statement of its own: the retry sees what was let go before the lock.
        Statement(sql["lock_schedules_of_jobs"], {"ids": [job_id for job_id, _ in keys]}),
        Statement(sql["retry_jobs"], _params(keys, revival)),
    )
    try:
        *_, rows = yield Batch(statements)
    except _BUSY:
        if len(keys) == 1:
            return {
                keys[0][0]: Refusal("a transaction holds its unique key or schedule: try again")
            }
        # One of them waits for a stranger's transaction; the others need not.
        middle = len(keys) // 2
        first = yield from _revive_batch(sql, keys[:middle], revival)
        second = yield from _revive_batch(sql, keys[middle:], revival)
        return first | second
    return {job_id: None if moved else _taken(holder) for job_id, moved, holder in rows}


def _taken(holder: int | None) -> Refusal:
    by = f" by job {holder}" if holder is not None else ""
    return Refusal(f"its unique key is taken{by}", holder)


def _keyed(keys: Sequence[Key]) -> dict[str, Any]:
    return {
        "ids": [job_id for job_id, _ in keys],
        "finished_ats": [finished_at for _, finished_at in keys],
    }


def _params(keys: Sequence[Key], revival: Revival) -> dict[str, Any]:
    return {
        **_keyed(keys),
        "payloads": [revival.payloads.get(job_id) for job_id, _ in keys],
        "states": list(revival.states),
        "tasks": list(revival.tries),
        "tries": list(revival.tries.values()),
        "action": revival.action,
        "details": json.dumps(dict(revival.details)),
        "from_start": revival.from_start,
        **revival.operator.params,
    }


def _reported(
    sql: Sql, keys: Sequence[Key], became: Mapping[int, Refusal | None]
) -> Steps[Retried]:
    """What became of each; where one was not met, somebody else has been at it meanwhile."""
    unmet = [job_id for job_id, _ in keys if job_id not in became]
    places = yield from _find_places(sql, unmet)
    refused = {job_id: refusal.reason for job_id, refusal in became.items() if refusal}
    for job_id, place in places.items():
        if place.finished_at is not None:
            refused[job_id] = "another session holds it: try again"
    return Retried(
        retried=tuple(sorted(job_id for job_id, refusal in became.items() if refusal is None)),
        live=tuple(job_id for job_id, place in places.items() if place.finished_at is None),
        refused=refused,
        missing=tuple(job_id for job_id in unmet if job_id not in places),
    )
