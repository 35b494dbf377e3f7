"""A worker's own connections."""

from __future__ import annotations

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgqueue.db.run import Statement
from pgqueue.engine.claim import STEADY, STEADY_NOT_DURABLE
from pgqueue.worker.link import Link
from proving import rows


async def test_claims_and_endings_are_read_committed_whatever_the_default_of_the_database(
    database: str,
) -> None:
    # In repeatable read, a row that somebody edits just then fails the claim of a whole batch.
    name = sql.Identifier(str(conninfo_to_dict(database)["dbname"])).as_string()
    rows(database, f"alter database {name} set default_transaction_isolation = 'repeatable read'")
    asked = Statement("select current_setting('transaction_isolation')")
    for settings in (STEADY, STEADY_NOT_DURABLE):
        link = Link("claims", lambda: database, settings)
        assert await link.ask(asked) == [[("read committed",)]]
        assert await link.ask(asked, asked) == [[("read committed",)]] * 2
        await link.close()
