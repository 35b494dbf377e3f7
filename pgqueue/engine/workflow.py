"""The pass over workflows: jobs that have ended let others go, or call them off.

An ending is told in its own transaction (the trigger on `jobs`), and a pass draws the consequences
in one after it: soon, by the worker that wrote the ending, or by a chore, if that worker died. One
pass at a time has a workflow, so two parents that end at once cannot both miss their child.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pgqueue.db.run import Rows, Statement, Steps, in_transaction

Sql = Mapping[str, str]

NEWS = 500
"""Endings that one transaction of a pass looks at."""

NODES = 500
"""Nodes that one transaction lets go, and at most so many that it calls off."""

TOGETHER = 50
"""Workflows that one transaction locks."""

FOUND = 1000
"""Workflows that one look finds."""

BEGINNING = (0, 0)


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass did: nodes let go and called off, workflows that ended, and those left over.

    `left` are to come again soon: another pass had them, or somebody holds the row of a job.
    """

    released: int = 0
    ended: int = 0
    closed: tuple[tuple[int, str], ...] = ()
    left: frozenset[int] = frozenset()

    def joined(self, other: Passed) -> Passed:
        return Passed(
            self.released + other.released,
            self.ended + other.ended,
            self.closed + other.closed,
            self.left | other.left,
        )


class _News(NamedTuple):
    """One line of what was told; no outcome: the job is live."""

    workflow_id: int
    id: int
    job_id: int
    outcome: str | None


class _Round(NamedTuple):
    """What one transaction did: its last line of news, if it found any, and what is kept."""

    passed: Passed
    place: tuple[int, int] | None
    kept: int


def pass_told(sql: Sql) -> Steps[Passed]:
    """A pass over all workflows that something was told of; for a connection in autocommit."""
    passed, after = Passed(), 0
    while True:
        rows = yield Statement(sql["find_told_workflows"], {"after": after, "n": FOUND})
        ids = [workflow_id for (workflow_id,) in rows]
        passed = passed.joined((yield from pass_workflows(sql, ids)))
        if len(ids) < FOUND:
            return passed
        after = ids[-1]


def pass_workflows(sql: Sql, ids: Collection[int]) -> Steps[Passed]:
    """Draw the consequences of what these workflows were told; for a connection in autocommit."""
    passed = Passed()
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), TOGETHER):
        passed = passed.joined((yield from _pass_some(sql, ordered[start : start + TOGETHER])))
    return passed


def _pass_some(sql: Sql, ids: Sequence[int]) -> Steps[Passed]:
    """Walk through the news again and again, until nothing is kept or nothing moves."""
    passed = Passed()
    while True:
        walked, kept = yield from _walk(sql, ids)
        # Who was left by an earlier walk may have been met by this one.
        passed = replace(passed.joined(walked), left=walked.left)
        if walked.ended:
            continue  # of those it was told meanwhile
        if not kept:
            return passed
        if not walked.released:
            return replace(passed, left=frozenset(ids))


def _walk(sql: Sql, ids: Sequence[int]) -> Steps[tuple[Passed, int]]:
    passed, kept, place = Passed(), 0, BEGINNING
    while True:
        done = yield from in_transaction(_round(sql, ids, place))
        passed, kept = passed.joined(done.passed), kept + done.kept
        if done.place is None:
            return passed, kept
        place = done.place


def _round(sql: Sql, ids: Sequence[int], place: tuple[int, int]) -> Steps[_Round]:
    yield Statement(sql["open_pass"])
    rows = yield Statement(sql["lock_workflows"], {"ids": list(ids)})
    locked = [workflow_id for (workflow_id,) in rows]
    left = frozenset(ids) - frozenset(locked)
    after_workflow, after = place
    params = {"ids": locked, "after_workflow": after_workflow, "after": after, "n": NEWS}
    rows = (yield Statement(sql["settle_nodes"], params)) if locked else []
    news = [_News._make(row) for row in rows]
    if not news:
        return _Round(Passed(left=left), None, 0)
    did, kept = yield from _follow(sql, news)
    closed = yield from _close(sql, news)
    is_last = len(news) < NEWS
    last = None if is_last else (news[-1].workflow_id, news[-1].id)
    return _Round(Passed(did.released, did.ended, closed, left), last, kept)


def _follow(sql: Sql, news: Sequence[_News]) -> Steps[tuple[Passed, int]]:
    """Call off, let go, and forget what needs no further look; also returns how much is kept."""
    told = [one.job_id for one in news if one.outcome is None]
    ended = [one.job_id for one in news if one.outcome is not None]
    bad = [one.job_id for one in news if one.outcome not in (None, "completed")]
    doomed, has_more = 0, False
    if bad or told:
        params = {"bad": bad, "told": told, "n": NODES}
        ((doomed, has_more),) = yield Statement(sql["end_doomed_nodes"], params)
    params = {"ended": ended, "told": told, "n": NODES}
    rows = yield Statement(sql["lock_waiting_nodes"], params)
    locked = [job_id for (job_id,) in rows]
    released = 0
    if locked:
        ((released,),) = yield Statement(sql["release_nodes"], {"ids": locked})
    params = {
        "workflow_ids": [one.workflow_id for one in news],
        "ids": [one.id for one in news],
        "job_ids": [one.job_id for one in news],
        "ended": ended,
        "looked_at": locked,
        "keep": [*bad, *told] if has_more else [],
    }
    ((kept,),) = yield Statement(sql["forget_news"], params)
    return Passed(released, doomed), kept


def _close(sql: Sql, news: Sequence[_News]) -> Steps[tuple[tuple[int, str], ...]]:
    """The workflows whose last node has ended, with how they ended."""
    params = {
        "ids": sorted({one.workflow_id for one in news}),
        "told": [one.job_id for one in news if one.outcome is None],
    }
    rows: Rows = yield Statement(sql["watch_workflows"], params)
    if not rows:
        return ()
    rows = yield Statement(sql["close_workflows"], {"ids": [found for (found,) in rows]})
    return tuple((workflow_id, outcome) for workflow_id, outcome in rows if outcome is not None)
