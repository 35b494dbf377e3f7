"""What an operator changes stands in audit_log; what changes nothing does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from pgqueue import ConfigError, Operator, PgQueue
from pgqueue.engine.keeping import Policy
from pgqueue.engine.operate import this_user
from proving import rows, value

AUDIT = "select who, source, action, target, details from pgqueue.audit_log order by id"
EVA = Operator("eva", "api")


def test_a_quota_that_is_set_changed_or_taken_away_is_recorded(pgq: PgQueue, database: str) -> None:
    pgq.set_quota("acme", 50, by=EVA)
    pgq.set_quota("acme", 50, by=EVA)
    pgq.set_quota("acme", 20)
    pgq.set_quota("acme", None, by=EVA)
    pgq.set_quota("acme", None, by=EVA)

    me = this_user()
    assert rows(database, AUDIT) == [
        ("eva", "api", "quota", "tenant acme", {"max_waiting": 50, "before": None}),
        (me.who, "code", "quota", "tenant acme", {"max_waiting": 20, "before": 50}),
        ("eva", "api", "quota", "tenant acme", {"max_waiting": None, "before": 20}),
    ]


async def test_a_quota_is_set_from_async_code(pgq: PgQueue, database: str) -> None:
    await pgq.aset_quota("*", 7, by=EVA)
    await pgq.pools.aclose()
    assert rows(database, "select tenant, max_waiting from pgqueue.quotas") == [("*", 7)]


@pytest.mark.parametrize(
    ("tenant", "quota", "message"),
    [
        ("acme", -1, "quota -1 of tenant 'acme' is not valid: a whole number from 0"),
        ("acme", "5", "quota '5' of tenant 'acme' is not valid: a whole number from 0"),
        ("acme", 1.5, "quota 1.5 of tenant 'acme' is not valid: a whole number from 0"),
        ("acme", 2**40, "quota 1099511627776 of tenant 'acme' is not valid: a whole number from 0"),
        ("", 5, "tenant '' is not valid: text of 1 to 200 bytes"),
        (None, 5, "tenant '' is not valid: text of 1 to 200 bytes"),
        ("a\0", 5, "tenant 'a\\x00' is not valid: text of 1 to 200 bytes"),
    ],
)
def test_a_quota_that_is_not_valid_is_refused(
    pgq: PgQueue, database: str, tenant: Any, quota: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        pgq.set_quota(tenant, quota)
    assert message in str(refused.value)
    assert value(database, "select count(*) from pgqueue.audit_log") == 0


async def test_what_is_kept_is_set_from_code_and_recorded(pgq: PgQueue, database: str) -> None:
    assert await pgq.aset_retention("completed", keep_count=5, by=EVA) == Policy(
        "completed", timedelta(days=7), 5
    )
    assert await asyncio.to_thread(pgq.set_retention, "failed", keep=None) == Policy(
        "failed", None, None
    )
    assert await pgq.alist_retention() == await asyncio.to_thread(pgq.list_retention)
    await pgq.pools.aclose()
    found = [(who, action, target) for who, _, action, target, _ in rows(database, AUDIT)]
    assert found == [
        ("eva", "retention", "completed jobs"),
        (this_user().who, "retention", "failed jobs"),
    ]


@pytest.mark.parametrize(
    ("group", "given", "message"),
    [
        ("all", {"keep": timedelta(days=1)}, "state group 'all' is not valid: completed, failed"),
        ("failed", {}, "say what to keep: keep, keep_count, or both"),
        ("failed", {"keep": 7}, "keep 7 is not valid: 1 hour or more, 100 years at most"),
        ("failed", {"keep": timedelta(days=99_999)}, "is not valid: 1 hour or more"),
        ("failed", {"keep_count": -1}, "keep_count -1 is not valid: a whole number from 0"),
        ("failed", {"keep_count": 2.5}, "keep_count 2.5 is not valid: a whole number from 0"),
        ("failed", {"keep": None, "keep_count": 5}, "failed jobs are kept for ever: give keep"),
        ("windows", {"keep_count": 5}, "windows are kept by time alone: give keep"),
        ("failed", {"keep_count": 5, "by": "eva"}, "by='eva' is not valid: use Operator('eva')"),
    ],
)
def test_a_policy_that_is_not_valid_is_refused(
    pgq: PgQueue, database: str, group: str, given: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        pgq.set_retention(group, **given)
    assert message in str(refused.value)
    assert value(database, "select count(*) from pgqueue.audit_log") == 0


def test_a_schedule_that_somebody_stores_is_recorded(pgq: PgQueue, database: str) -> None:
    @pgq.task
    def fire() -> None: ...

    pgq.put_schedule("nightly", cron="0 3 * * *", task=fire, by=EVA)
    pgq.put_schedule("nightly", cron="0 4 * * *", task=fire)

    told = {"cron": "0 3 * * *", "timezone": "UTC", "task": "fire"}
    assert rows(database, AUDIT) == [
        ("eva", "api", "add", "schedule nightly", told),
        (this_user().who, "code", "change", "schedule nightly", told | {"cron": "0 4 * * *"}),
    ]


async def test_schedules_declared_in_code_are_no_operators_deed(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    def fire() -> None: ...

    pgq.schedule("nightly", cron="0 3 * * *", task=fire)
    await pgq.worker(burst=True, scheduler=False).run()
    assert value(database, "select count(*) from pgqueue.schedules") == 1
    assert rows(database, AUDIT) == []
