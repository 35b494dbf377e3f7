"""Insert jobs: one, or many in one statement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from pgqueue.db.run import Copy, Rows, Statement, Steps, array_of
from pgqueue.engine.inspect import job_of_row
from pgqueue.engine.notify import notify
from pgqueue.errors import JobNotFound, TooManyJobs, UniqueKeyBusy, UniqueKeyTaken
from pgqueue.job import Job, NewJob, NewJobs, State, storable_json

Sql = Mapping[str, str]

COPY_FROM = 250
"""Jobs from which on COPY is faster, with the round trip for their ids."""


def enqueue_job(sql: Sql, new: NewJob, channel: str | None = None) -> Steps[Job]:
    """Insert one job; with a unique key it may be an existing one that comes back.

    With a `channel` workers are told in the same transaction (see `engine.notify`). Raises
    TooManyJobs, UniqueKeyTaken and UniqueKeyBusy.
    """
    if not _needs_rules(new):
        if channel is None and _is_plain(new):
            statement = Statement(sql["insert_plain_job"], _plain(new))
        else:
            statement = Statement(sql["insert_job"], {**_single(new), "channel": channel})
        (returned,) = yield statement
        return _inserted(new, *returned[:4])
    single = _single(new)
    params = {**single, "delay": _delay_given(new), "limits": array_of(new.limits)}
    ((job_id, _),) = yield from _by_the_rules(Statement(sql["enqueue_job"], params), [new])
    if channel is not None:
        yield notify(sql, channel, new.queue)
    rows = yield Statement(sql["find_job"], {"id": job_id})
    if not rows:
        # Ended long ago, inside the period of its key, and dropped since.
        raise JobNotFound(job_id)
    return job_of_row(rows[0])


def enqueue_jobs(sql: Sql, new_jobs: Sequence[NewJob]) -> Steps[list[int]]:
    """Insert many jobs in one statement, all or none; returns their ids in the order given.

    Where a unique key is taken, the id is that of its holder. Raises as `enqueue_job` does.
    """
    if not new_jobs:
        return []
    columns = _columns(new_jobs)
    if not any(_needs_rules(new) for new in new_jobs):
        rows = yield Statement(sql["insert_jobs"], columns)
        return [job_id for (job_id,) in rows]
    params = {
        **columns,
        "delays": [_delay_given(new) for new in new_jobs],
        "limits": [array_of(new.limits) for new in new_jobs],
    }
    rows = yield from _by_the_rules(Statement(sql["enqueue_jobs"], params), new_jobs)
    return [job_id for _, job_id in rows]


def enqueue_alike(
    sql: Sql, new: NewJobs, channel: str | None = None, *, is_alone: bool = False
) -> Steps[list[int]]:
    """Insert jobs that differ only in their payloads, all or none; returns their ids in order.

    From COPY_FROM on, and where no rule concerns them, by COPY. `is_alone`: each statement is a
    transaction of its own. `channel` and what is raised as in `enqueue_job`.
    """
    ids = yield from _put_alike(sql, new, is_alone=is_alone)
    if channel is not None and ids:
        yield notify(sql, channel, new.like.queue)
    return ids


def _put_alike(sql: Sql, new: NewJobs, *, is_alone: bool) -> Steps[list[int]]:
    if _needs_rules(new.like) or not new.count:
        return (yield from enqueue_jobs(sql, new.one_by_one()))
    if new.count < COPY_FROM:
        return (yield from _insert_alike(sql, new.like, new.texts()))
    try:
        return (yield from _copy_alike(sql, new, is_alone=is_alone))
    except psycopg.NotSupportedError:  # the caller's connection is in pipeline mode
        texts = new.texts()
        if len(texts) < new.count:  # some were sent: it was something else
            raise
        return (yield from _insert_alike(sql, new.like, texts))


def _insert_alike(sql: Sql, like: NewJob, texts: Sequence[bytes]) -> Steps[list[int]]:
    rows = yield Statement(sql["insert_alike"], {**_single(like), "payloads": _array(texts)})
    return [job_id for (job_id,) in rows]


def _copy_alike(sql: Sql, new: NewJobs, *, is_alone: bool) -> Steps[list[int]]:
    like = new.like
    params = {"n": new.count, "run_at": like.run_at, "delay": like.delay, "is_alone": is_alone}
    ((first_id, gapped_ids, scheduled_at, now, _),) = yield Statement(sql["take_ids"], params)
    ids = gapped_ids or range(first_id, first_id + new.count)
    if _is_plain(like):
        name, after = "copy_plain_jobs", _plain_end(like)
    else:
        name, after = "copy_jobs", _full_end(like, scheduled_at, now)
    yield Copy(sql[name], _copy_blocks(new, ids, after))
    return list(ids)


def _array(texts: Sequence[bytes]) -> str:
    """JSON texts as an array's literal; they hold no raw NUL, which parts them meanwhile."""
    quoted = b"\0".join(texts).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return '{"' + quoted.replace(b"\0", b'","').decode() + '"}'


def _is_plain(like: NewJob) -> bool:
    """Whether the columns' defaults say all but the task, its queue and how to try it."""
    rest = (like.run_at, like.delay, like.tags, like.timeout, like.expires_at, like.headers)
    return not any(rest)


def _plain_end(like: NewJob) -> str:
    return f"\t{like.priority}\t{like.max_attempts}"


def _full_end(like: NewJob, scheduled_at: datetime, now: datetime) -> str:
    return "\t".join(
        (
            "",
            str(like.priority),
            # Never in the past: a claim's bound may have gone by that place.
            max(scheduled_at, now).isoformat(),
            scheduled_at.isoformat(),
            _copied(array_of(like.tags)),
            str(like.max_attempts),
            "\\N" if like.timeout is None else repr(float(like.timeout)),
            "\\N" if like.expires_at is None else like.expires_at.isoformat(),
            _copied(json.dumps(like.headers or {})),
        )
    )


def _copy_blocks(new: NewJobs, ids: Sequence[int], after: str) -> Iterator[bytes]:
    """Lines for COPY in text format, a block at a time; `after` is what ends them all."""
    end = f"\t{_copied(new.like.task)}\t{_copied(new.like.queue)}{after}\n".encode()
    remaining = iter(ids)
    for block in new.blocks:
        # Bytes throughout: as text a line cost twice as much. Payloads first: a block ends with
        # them, and zip has then taken no id too many.
        lines = zip(_copied_json(block), remaining, strict=False)
        yield end.join([b"%b\t%d" % line for line in lines]) + end


def _copied_json(payloads: Sequence[bytes]) -> Sequence[bytes]:
    """JSON in COPY's text format; it has no raw tab or line break."""
    if b"\\" not in b"".join(payloads):
        return payloads
    return [payload.replace(b"\\", b"\\\\") for payload in payloads]


def _copied(text: str) -> str:
    """A value in COPY's text format."""
    text = text.replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _needs_rules(new: NewJob) -> bool:
    return new.unique_key is not None or new.tenant is not None or bool(new.limits)


def _delay_given(new: NewJob) -> float | None:
    """None for no delay: `replace` then leaves the time of a waiting job alone."""
    return new.delay or None


def _by_the_rules(statement: Statement, new_jobs: Sequence[NewJob]) -> Steps[Rows]:
    """Run a statement that calls `enqueue_v1`, and give its SQL states our names."""
    try:
        rows: Rows = yield statement
    except psycopg.Error as error:
        raise _named(error, new_jobs) from error
    return rows


def _named(error: psycopg.Error, new_jobs: Sequence[NewJob]) -> Exception:
    message = error.diag.message_primary or str(error)
    match error.sqlstate:
        case "PQ001":
            return TooManyJobs(message, int(error.diag.message_detail or 0))
        case "PQ002":
            return UniqueKeyTaken(message, int(error.diag.message_detail or 0))
        case "PQ003":
            wait = max(new.unique_wait for new in new_jobs)
            return UniqueKeyBusy(message, wait)
        case _:
            return error


def _plain(new: NewJob) -> dict[str, Any]:
    return {
        "task": new.task,
        "queue": new.queue,
        "payload": new.text or storable_json(new.payload),
        "priority": new.priority,
        "max_attempts": new.max_attempts,
    }


def _single(new: NewJob) -> dict[str, Any]:
    return {
        **_plain(new),
        "run_at": new.run_at,
        "delay": new.delay,
        "tenant": new.tenant,
        # As a literal: the driver is slow with lists, and unnest flattens nested arrays.
        "tags": array_of(new.tags),
        "unique_key": new.unique_key,
        "unique_mode": new.unique_mode,
        "unique_for": new.unique_for,
        "unique_wait": new.unique_wait,
        "timeout": new.timeout,
        "expires_at": new.expires_at,
        "headers": json.dumps(new.headers) if new.headers else "{}",
    }


_PLURALS = {
    "tasks": "task",
    "queues": "queue",
    "payloads": "payload",
    "priorities": "priority",
    "run_ats": "run_at",
    "delays": "delay",
    "tenants": "tenant",
    "tags": "tags",
    "unique_keys": "unique_key",
    "unique_modes": "unique_mode",
    "unique_fors": "unique_for",
    "unique_waits": "unique_wait",
    "max_attempts": "max_attempts",
    "timeouts": "timeout",
    "expires_ats": "expires_at",
    "headers": "headers",
}


def _columns(new_jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    singles = [_single(new) for new in new_jobs]
    return {plural: [single[name] for single in singles] for plural, name in _PLURALS.items()}


def _inserted(
    new: NewJob, job_id: int, run_at: datetime, scheduled_at: datetime, created_at: datetime
) -> Job:
    return Job(
        id=job_id,
        task=new.task,
        queue=new.queue,
        priority=new.priority,
        state=State.QUEUED,
        payload=new.payload,
        tenant=new.tenant,
        tags=new.tags,
        unique_key=new.unique_key,
        run_at=run_at.astimezone(UTC),
        scheduled_at=scheduled_at.astimezone(UTC),
        attempt=0,
        max_attempts=new.max_attempts,
        lease=None,
        worker_id=None,
        started_at=None,
        created_at=created_at.astimezone(UTC),
        timeout=new.timeout,
        headers=new.headers or {},
        expires_at=new.expires_at,
    )
