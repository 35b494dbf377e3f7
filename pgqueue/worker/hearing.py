"""NOTIFY on a connection that is used for statements, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import psycopg
from psycopg import Notify, sql
from psycopg.rows import TupleRow


class Ear(Protocol):
    """Who wants to hear; see worker/listener.py. Without a channel there is nothing to hear."""

    channel: str | None

    def began(self) -> None:
        """What is said from now on is heard."""

    def heard(self, said: str) -> None: ...

    def ended(self) -> None:
        """Nothing is heard any more."""


class Hearing:
    """Hears while no statement is under way; during one the driver does.

    The driver watches the socket in its own way while it waits for an answer, and two cannot: who
    sends a statement calls `pause` before it and `resume` after it.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[TupleRow],
        ear: Ear,
        on_broken: Callable[[str], None],
    ) -> None:
        """`on_broken` is told why, when the server has closed the connection meanwhile."""
        self._connection = connection
        self._ear = ear
        self._on_broken = on_broken
        self._socket = connection.fileno()
        self._is_watching = False
        connection.add_notify_handler(self._told)

    @classmethod
    async def begin(
        cls,
        connection: psycopg.AsyncConnection[TupleRow],
        channel: str,
        ear: Ear,
        on_broken: Callable[[str], None],
    ) -> Hearing:
        """Listen on the channel, and tell the ear that it began."""
        hearing = cls(connection, ear, on_broken)
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        ear.began()
        return hearing

    def pause(self) -> None:
        # Once and no more: the number of a socket that is closed is soon another one's.
        if self._is_watching:
            self._is_watching = False
            asyncio.get_running_loop().remove_reader(self._socket)

    def resume(self) -> None:
        # What came right behind an answer was read with it, and the socket will not tell of it.
        self._tell()
        self._is_watching = True
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def end(self) -> None:
        self.pause()
        self._ear.ended()

    def _read(self) -> None:
        try:
            self._connection.pgconn.consume_input()
        except psycopg.OperationalError as error:
            self._on_broken(str(error))
        else:
            self._tell()

    def _tell(self) -> None:
        while (said := self._connection.pgconn.notifies()) is not None:
            self._ear.heard(said.extra.decode(errors="replace"))

    def _told(self, said: Notify) -> None:
        self._ear.heard(said.payload)
