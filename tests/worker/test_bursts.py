"""When a burst with limited jobs goes on: nothing that was let in is left behind."""

from __future__ import annotations

from typing import Any

from pgqueue import PgQueue
from pgqueue.engine.limits import Pass
from pgqueue.worker.admission import Admission
from pgqueue.worker.hand import Hand


class _Passes:
    """Each pass finds that somebody else has let jobs in, and that nothing waits."""

    opened = 1

    async def connected(self) -> None: ...

    async def execute(self, steps: Any) -> Pass:
        steps.close()
        return Pass(
            ran=True,
            admitted=0,
            queues=[],
            lowest=0,
            reached="",
            wait=None,
            moving=False,
            unclaimed=True,
            unseen=[],
        )


async def test_a_burst_claims_once_more_where_a_pass_of_its_own_duty_came_before(
    pgq: PgQueue,
) -> None:
    link: Any = _Passes()
    looks = []
    admission = Admission(
        pgq.sql,
        link,
        pgq.settings,
        Hand(),
        queues=(),
        has_room=lambda _: True,
        let_in=lambda: looks.append(1),
    )
    assert await admission.brings(link, 1.0), "they may be ours"
    assert not await admission.brings(link, 1.0), "nobody here took one: they are for others"
    assert await admission.brings(link, 2.0), "one was taken: there may be another one"
    assert len(looks) == 3
