"""The tables and indexes of limits; see tables.py."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pgqueue.db.columns import TIME, required


def limit_indexes(jobs: Table) -> None:
    """Where blocked and admitted jobs are found."""
    columns = jobs.c
    admitted, blocked = text("admitted_seq is not null"), text("blocked_on is not null")
    Index("jobs_admitted", columns.admitted_seq, postgresql_where=admitted)
    Index(
        "jobs_blocked",
        columns.blocked_on,
        text("coalesce(tenant, '')"),
        columns.priority.desc(),
        columns.run_at,
        columns.id,
        postgresql_where=blocked,
    )
    later = text("blocked_on = '@run_at'")
    Index("jobs_later", columns.run_at, postgresql_where=later)
    Index(
        "jobs_ordered",
        columns.order_name,
        columns.scheduled_at,
        columns.id,
        postgresql_where=text("order_name is not null"),
    )


def limit_tables(metadata: MetaData) -> None:
    """Rules, what tasks declare, starts, turns and holds."""
    _rule_tables(metadata)
    _pass_tables(metadata)


def _rule_tables(metadata: MetaData) -> None:
    limits = Table(
        "limits",
        metadata,
        required("name", Text()),
        required("declared", Boolean()),
        Column("pattern", Text),
        Column("running", Integer),
        Column("starts", Integer),
        Column("per", Double),
        Column("on_failure", Text),
        Column("until", TIME),
        required("set_at", TIME, "clock_now()"),
        required("set_by", Text()),
        PrimaryKeyConstraint("name", "declared", name="limits_pkey"),
    )
    Index("limits_declared", limits.c.name, postgresql_where=limits.c.declared)
    Table(
        "task_limits",
        metadata,
        required("task", Text()),
        required("names", ARRAY(Text)),
        required("set_at", TIME, "clock_now()"),
        PrimaryKeyConstraint("task", name="task_limits_pkey"),
    )


def _pass_tables(metadata: MetaData) -> None:
    starts = Table(
        "limit_starts",
        metadata,
        required("name", Text()),
        required("at", TIME),
    )
    Index("limit_starts_at", starts.c.name, starts.c.at)
    Table(
        "limit_turns",
        metadata,
        required("name", Text()),
        required("tenant", Text()),
        required("at", TIME, "clock_now()"),
        PrimaryKeyConstraint("name", name="limit_turns_pkey"),
    )
    Table(
        "order_holds",
        metadata,
        required("name", Text()),
        required("job_id", BigInteger()),
        required("finished_at", TIME),
        PrimaryKeyConstraint("name", name="order_holds_pkey"),
    )
