"""An order and its job are stored together, or not at all.

Run: python examples/enqueue_in_transaction.py
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from pgqueue import PgQueue
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()


@pgq.task
def ship(order: int, connection: psycopg.Connection) -> None:
    """Ship an order; the row and the job's completion are one transaction."""
    connection.execute("insert into example_shipped values (%s)", [order])


def place(order: int, *, stock: int) -> None:
    """Store an order and its job; raises ValueError, and stores neither, without stock."""
    with pgq.connection() as connection, connection.transaction():
        connection.execute("insert into example_orders values (%s)", [order])
        ship.using(connection=connection).enqueue(order=order)
        if not stock:
            raise ValueError(f"order {order}: out of stock")


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    with pgq.connection() as connection:
        for table in ("example_orders", "example_shipped"):
            connection.execute(f"drop table if exists {table}")
            connection.execute(f"create table {table} (id bigint primary key)")
    place(1, stock=3)
    try:
        place(2, stock=0)
    except ValueError as error:
        log.info("%s", error)
    asyncio.run(pgq.worker(burst=True).run())
    with pgq.connection() as connection:
        orders = connection.execute("select id from example_orders").fetchall()
        shipped = connection.execute("select id from example_shipped").fetchall()
    log.info("orders %s, shipped %s", orders, shipped)
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
