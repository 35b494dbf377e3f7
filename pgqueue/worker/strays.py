"""Gives back what the database believes this worker runs and the worker does not know of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgqueue.engine.rescue import hand_back_strays
from pgqueue.events import StraysHandedBack, emit
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link
from pgqueue.worker.loop import ClaimLoop


class Strays:
    """`turn` is done slowly in the background, and at once after a reply was lost."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        worker_id: Callable[[], int],
        hand: Hand,
        claims: ClaimLoop,
    ) -> None:
        self._sql = sql
        self._link = link
        self._worker_id = worker_id
        self._hand = hand
        self._claims = claims

    async def turn(self) -> float | None:
        lost_replies = self._claims.lost_replies
        worker_id = self._worker_id()
        found = await self._link.execute(hand_back_strays(self._sql, worker_id, self._hand.in_hand))
        if not found:
            self._claims.reconciled(lost_replies)
            return None
        emit(StraysHandedBack(worker_id, tuple(found)))
        self._claims.wake()
        return 0.0  # 500 a pass: there may be more
