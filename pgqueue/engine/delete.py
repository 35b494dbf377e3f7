"""Delete jobs that do not run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.operate import Operator, batches, patiently

Sql = Mapping[str, str]

TRIES = 3
"""How often ids that were edited under our hands are asked for again."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of the ids: `running` ones are refused, cancel them first."""

    deleted: tuple[int, ...] = ()
    running: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


def delete_jobs(sql: Sql, ids: Collection[int], operator: Operator) -> Steps[Deleted]:
    """Delete jobs by id, live and finished, with their logs; in batches of 500."""
    remaining = sorted(set(ids))
    became: dict[int, str] = {}
    for _ in range(TRIES):
        for batch in batches(remaining):
            params = {"ids": list(batch), **operator.params}
            rows = yield from patiently(sql, Statement(sql["delete_jobs"], params))
            became.update(dict(rows))
        remaining = [job_id for job_id in remaining if job_id not in became]
        if not remaining:
            break
    return Deleted(
        deleted=tuple(job_id for job_id, what in became.items() if what == "deleted"),
        running=tuple(job_id for job_id, what in became.items() if what == "running"),
        missing=tuple(remaining),
    )
