"""What follows in workflows when jobs have ended here: soon, by the worker that wrote the ending.

What a worker cannot do any more that dies before its pass, the chore does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgqueue.db.run import Steps
from pgqueue.engine.notify import ring
from pgqueue.engine.workflow import Passed, pass_told, pass_workflows
from pgqueue.events import WorkflowFinished, emit
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link

FIRST_WAIT = 0.02
LONGEST_WAIT = 1.0
"""Seconds until another look at a workflow that another pass has, or whose job somebody holds."""


class Followers:
    """`turn` makes a pass over the workflows of jobs that ended here."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        hand: Hand,
        channel: str | None,
        wake: Callable[[], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._hand = hand
        self._channel = channel
        self._wake = wake
        self._wait = FIRST_WAIT

    async def turn(self) -> float | None:
        """The seconds until the next turn, if something was left over."""
        ids = frozenset(self._hand.told_workflows)
        self._hand.told_workflows.clear()
        try:
            passed = await self._link.execute(pass_workflows(self._sql, ids))
        except BaseException:
            self._hand.told_workflows |= ids
            raise
        tell(passed)
        if passed.released:
            self._wake()
            # They may belong to queues of others.
            await self._link.execute(ring(self._sql, self._channel, ""))
        if not passed.left:
            self._wait = FIRST_WAIT
            return None
        self._hand.told_workflows |= passed.left
        wait, self._wait = self._wait, min(LONGEST_WAIT, 2 * self._wait)
        return wait


def follow_told(
    sql: Mapping[str, str], channel: str | None, wake: Callable[[], None]
) -> Steps[None]:
    """The chore: a pass over whatever was told of."""
    passed = yield from pass_told(sql)
    tell(passed)
    if passed.released:
        wake()
        yield from ring(sql, channel, "")


def tell(passed: Passed) -> None:
    """An event for each workflow that has ended."""
    for workflow_id, state in passed.closed:
        emit(WorkflowFinished(workflow_id, state))
