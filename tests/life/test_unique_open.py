"""A caller who leaves a transaction open holds up nobody who works on the job that has the key."""

from __future__ import annotations

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.errors import UniqueKeyTaken
from proving import value


@pytest.mark.parametrize("mode", ["skip", "raise"])
async def test_a_job_ends_while_somebody_has_met_its_key_in_an_open_transaction(
    pgq: PgQueue, database: str, mode: str
) -> None:
    @pgq.task
    def work() -> None: ...

    job = work.using(unique_key="k").enqueue()
    with psycopg.connect(database) as caller:
        again = work.using(unique_key="k", unique_mode=mode, connection=caller)
        if mode == "skip":
            assert again.enqueue().id == job.id
        else:
            caller.execute("savepoint before")
            with pytest.raises(UniqueKeyTaken):
                again.enqueue()
            caller.execute("rollback to savepoint before")
        await pgq.worker(burst=True, scheduler=False).run()
        assert value(database, "select state from pgqueue.finished_jobs") == "completed"
        caller.commit()
