"""The queue's schema in SQLAlchemy Core: what `alembic check` holds the migrations against.

Functions, views, CHECKs and partitions are invisible to Alembic; the reviewed snapshot in
tests/project/schema.sql holds those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

_TIME = DateTime(timezone=True)


def queue_metadata(schema: str) -> MetaData:
    """The tables of the queue in the schema of that name."""
    metadata = MetaData(schema=schema)
    _settings_tables(metadata)
    _jobs_tables(metadata)
    _limit_tables(metadata)
    _schedule_tables(metadata)
    _maintenance_tables(metadata)
    _workflow_tables(metadata)
    _steps_tables(metadata)
    return metadata


def _required(name: str, kind: TypeEngine[Any], default: str | None = None) -> Column[Any]:
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default)


def _identity() -> Column[int]:
    return Column("id", BigInteger, Identity(always=False), nullable=False)


def _settings_tables(metadata: MetaData) -> None:
    Table(
        "schema_info",
        metadata,
        _required("one", Boolean(), "true"),
        _required("version", Integer()),
        _required("min_compatible", Integer()),
        PrimaryKeyConstraint("one", name="schema_info_pkey"),
    )
    Table(
        "queues",
        metadata,
        _required("name", Text()),
        _required("paused", Boolean(), "false"),
        _required("created_at", _TIME, "clock_now()"),
        Column("paused_at", _TIME),
        Column("paused_by", Text),
        Column("pause_reason", Text),
        _required("limited", Boolean(), "false"),
        Column("max_queued", Integer),
        PrimaryKeyConstraint("name", name="queues_pkey"),
    )
    Table(
        "workers",
        metadata,
        _identity(),
        _required("host", Text()),
        _required("pid", Integer()),
        _required("version", Text()),
        _required("queues", ARRAY(Text)),
        _required("concurrency", Integer()),
        _required("tasks", ARRAY(Text), "'{}'"),
        _required("started_at", _TIME, "clock_now()"),
        _required("heartbeat_at", _TIME, "clock_now()"),
        _required("started_jobs", ARRAY(BigInteger), "'{}'"),
        PrimaryKeyConstraint("id", name="workers_pkey"),
    )


def _jobs_tables(metadata: MetaData) -> None:
    jobs = Table(
        "jobs",
        metadata,
        _identity(),
        _required("task", Text()),
        _required("queue", Text()),
        _required("priority", SmallInteger(), "5"),
        _required("state", Text(), "'queued'"),
        _required("payload", JSONB(), "'{}'"),
        Column("tenant", Text),
        _required("tags", ARRAY(Text), "'{}'"),
        Column("unique_key", Text),
        _required("limits", ARRAY(Text), "'{}'"),
        Column("blocked_on", Text),
        _required("run_at", _TIME, "clock_now()"),
        _required("scheduled_at", _TIME, "clock_now()"),
        _required("attempt", Integer(), "0"),
        _required("max_attempts", Integer(), "1"),
        Column("lease", BigInteger),
        Column("worker_id", BigInteger),
        Column("started_at", _TIME),
        _required("created_at", _TIME, "clock_now()"),
        Column("timeout", Double),
        _required("errors", JSONB(), "'[]'"),
        Column("progress", JSONB),
        _required("headers", JSONB(), "'{}'"),
        Column("workflow_id", BigInteger),
        Column("cancel_requested_at", _TIME),
        Column("expires_at", _TIME),
        _required("crashes", Integer(), "0"),
        _required("suspect", Boolean(), "false"),
        Column("admitted_seq", BigInteger),
        Column("order_name", Text),
        PrimaryKeyConstraint("id", name="jobs_pkey"),
    )
    _limit_indexes(jobs)
    queued, running = text("state = 'queued'"), text("state = 'running'")
    columns = jobs.c
    Index(
        "jobs_claim",
        columns.queue,
        columns.priority,
        columns.run_at,
        columns.id,
        postgresql_where=queued,
    )
    Index("jobs_running", columns.worker_id, postgresql_where=running)
    keyed = text("unique_key is not null")
    Index("jobs_unique_key", columns.unique_key, unique=True, postgresql_where=keyed)

    waiting = text("tenant is not null and state <> 'running'")
    Index("jobs_tenant_waiting", columns.tenant, postgresql_where=waiting)
    expiring = text("expires_at is not null and state <> 'running'")
    Index("jobs_expiry", columns.expires_at, postgresql_where=expiring)

    carried_over = [
        Column(column.name, column.type, nullable=column.nullable)
        for column in columns
        if column.name not in {"blocked_on", "admitted_seq", "order_name"}
    ]
    Table(
        "finished_jobs",
        metadata,
        *carried_over,
        _required("finished_at", _TIME, "clock_now()"),
        Column("result", JSONB),
        PrimaryKeyConstraint("id", "finished_at", "state", name="finished_jobs_pkey"),
    )


def _limit_indexes(jobs: Table) -> None:
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


def _limit_tables(metadata: MetaData) -> None:
    Table(
        "limits",
        metadata,
        _required("name", Text()),
        _required("declared", Boolean()),
        Column("pattern", Text),
        Column("running", Integer),
        Column("starts", Integer),
        Column("per", Double),
        Column("on_failure", Text),
        Column("until", _TIME),
        _required("set_at", _TIME, "clock_now()"),
        _required("set_by", Text()),
        PrimaryKeyConstraint("name", "declared", name="limits_pkey"),
    )
    Table(
        "task_limits",
        metadata,
        _required("task", Text()),
        _required("names", ARRAY(Text)),
        _required("set_at", _TIME, "clock_now()"),
        PrimaryKeyConstraint("task", name="task_limits_pkey"),
    )
    starts = Table(
        "limit_starts",
        metadata,
        _required("name", Text()),
        _required("at", _TIME),
    )
    Index("limit_starts_at", starts.c.name, starts.c.at)
    Index("limit_starts_age", starts.c.at)
    Table(
        "limit_turns",
        metadata,
        _required("name", Text()),
        _required("tenant", Text()),
        _required("at", _TIME, "clock_now()"),
        PrimaryKeyConstraint("name", name="limit_turns_pkey"),
    )
    Table(
        "order_holds",
        metadata,
        _required("name", Text()),
        _required("job_id", BigInteger()),
        _required("finished_at", _TIME),
        PrimaryKeyConstraint("name", name="order_holds_pkey"),
    )


def _schedule_tables(metadata: MetaData) -> None:
    schedules = Table(
        "schedules",
        metadata,
        _identity(),
        _required("name", Text()),
        _required("cron", Text()),
        _required("timezone", Text(), "'UTC'"),
        _required("task", Text()),
        _required("queue", Text(), "'default'"),
        _required("payload", JSONB(), "'{}'"),
        _required("enabled", Boolean(), "true"),
        _required("catch_up", Text(), "'all'"),
        _required("overlap", Text(), "'queue'"),
        _required("delay", Double(), "0"),
        _required("max_attempts", Integer(), "1"),
        _required("window_parameters", ARRAY(Text), "'{}'"),
        _required("next_run_at", _TIME),
        Column("last_run_at", _TIME),
        _required("created_at", _TIME, "clock_now()"),
        _required("failures", Integer(), "0"),
        Column("last_error", Text),
        Column("retry_at", _TIME),
        _required("priority", SmallInteger(), "5"),
        _required("tags", ARRAY(Text), "'{}'"),
        Column("tenant", Text),
        Column("timeout", Double),
        _required("window_mode", Text(), "'window'"),
        Column("catch_up_max_age", Double),
        Column("catch_up_max_count", Integer),
        _required("jitter", Double(), "0"),
        Column("starts_at", _TIME),
        Column("ends_at", _TIME),
        Column("after_id", BigInteger),
        _required("declared", Boolean(), "false"),
        Column("paused_at", _TIME),
        Column("paused_by", Text),
        Column("pause_reason", Text),
        PrimaryKeyConstraint("id", name="schedules_pkey"),
        UniqueConstraint("name", name="schedules_name_key"),
    )
    schedules.append_constraint(
        ForeignKeyConstraint(
            ["after_id"], [schedules.c.id], name="schedules_after_fkey", ondelete="SET NULL"
        )
    )
    after = text("after_id is not null")
    Index("schedules_after", schedules.c.after_id, postgresql_where=after)
    cancelling = text("overlap = 'cancel-running'")
    Index("schedules_cancelling", schedules.c.id, postgresql_where=cancelling)
    enabled = text("enabled")
    Index("schedules_due", schedules.c.next_run_at, postgresql_where=enabled)
    _windows_tables(metadata, schedules)


def _windows_tables(metadata: MetaData, schedules: Table) -> None:
    backfills = Table(
        "backfills",
        metadata,
        _identity(),
        _required("schedule_id", BigInteger()),
        _required("range_start", _TIME),
        _required("range_end", _TIME),
        _required("concurrency", Integer(), "1"),
        _required("reached", _TIME),
        _required("created_at", _TIME, "clock_now()"),
        _required("created_by", Text()),
        Column("cancelled_at", _TIME),
        Column("finished_at", _TIME),
        PrimaryKeyConstraint("id", name="backfills_pkey"),
        ForeignKeyConstraint(
            ["schedule_id"], [schedules.c.id], name="backfills_schedule_fkey", ondelete="CASCADE"
        ),
    )
    Index("backfills_schedule", backfills.c.schedule_id)
    unfinished = text("finished_at is null")
    Index("backfills_open", backfills.c.id, postgresql_where=unfinished)
    windows = Table(
        "windows",
        metadata,
        _identity(),
        _required("schedule_id", BigInteger()),
        _required("window_start", _TIME),
        _required("window_end", _TIME),
        _required("mode", Text(), "'window'"),
        Column("job_id", BigInteger),
        _required("run", Integer(), "1"),
        _required("created_at", _TIME, "clock_now()"),
        _required("held", Boolean(), "false"),
        Column("due_at", _TIME),
        Column("backfill_id", BigInteger),
        Column("outcome", Text),
        Column("started_at", _TIME),
        Column("finished_at", _TIME),
        PrimaryKeyConstraint("id", name="windows_pkey"),
        ForeignKeyConstraint(
            ["schedule_id"], [schedules.c.id], name="windows_schedule_fkey", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["backfill_id"], [backfills.c.id], name="windows_backfill_fkey", ondelete="SET NULL"
        ),
        UniqueConstraint("schedule_id", "window_start", "mode", name="windows_once"),
    )
    _windows_indexes(windows)


def _windows_indexes(windows: Table) -> None:
    columns = windows.c
    is_open = text("outcome is null and not held")
    Index("windows_open", columns.schedule_id, columns.id, postgresql_where=is_open)
    held = text("held and backfill_id is null")
    Index("windows_held", columns.schedule_id, columns.window_start, postgresql_where=held)
    filled = text("backfill_id is not null and outcome is null")
    Index("windows_backfill", columns.backfill_id, columns.window_start, postgresql_where=filled)
    has_job = text("job_id is not null")
    Index("windows_job", columns.job_id, postgresql_where=has_job)


def _maintenance_tables(metadata: MetaData) -> None:
    unique_keys = Table(
        "unique_keys",
        metadata,
        _required("key", Text()),
        _required("job_id", BigInteger()),
        _required("until", _TIME),
        PrimaryKeyConstraint("key", name="unique_keys_pkey"),
    )
    Index("unique_keys_until", unique_keys.c.until)
    Table(
        "quotas",
        metadata,
        _required("tenant", Text()),
        _required("max_waiting", Integer()),
        PrimaryKeyConstraint("tenant", name="quotas_pkey"),
    )
    job_logs = Table(
        "job_logs",
        metadata,
        _identity(),
        _required("job_id", BigInteger()),
        _required("attempt", Integer()),
        _required("at", _TIME, "clock_now()"),
        _required("level", Text(), "'info'"),
        _required("message", Text()),
        PrimaryKeyConstraint("id", name="job_logs_pkey"),
    )
    Index("job_logs_job", job_logs.c.job_id, job_logs.c.id)
    audit_log = Table(
        "audit_log",
        metadata,
        _identity(),
        _required("at", _TIME, "clock_now()"),
        _required("who", Text()),
        _required("source", Text()),
        _required("action", Text()),
        _required("target", Text()),
        _required("details", JSONB(), "'{}'"),
        PrimaryKeyConstraint("id", name="audit_log_pkey"),
    )
    Index("audit_log_at", audit_log.c.at)
    Table(
        "retention",
        metadata,
        _required("state_group", Text()),
        _required("keep", Interval()),
        Column("keep_count", BigInteger),
        PrimaryKeyConstraint("state_group", name="retention_pkey"),
    )
    Table(
        "chores",
        metadata,
        _required("name", Text()),
        _required("every", Interval()),
        _required("due_at", _TIME, "clock_now()"),
        Column("taken_until", _TIME),
        Column("taken_by", BigInteger),
        Column("last_run_at", _TIME),
        Column("last_seconds", Double),
        Column("last_error", Text),
        PrimaryKeyConstraint("name", name="chores_pkey"),
    )


def _workflow_tables(metadata: MetaData) -> None:
    workflows = Table(
        "workflows",
        metadata,
        _identity(),
        _required("name", Text()),
        _required("created_at", _TIME, "clock_now()"),
        Column("open_job_id", BigInteger),
        Column("cancelled_at", _TIME),
        Column("finished_at", _TIME),
        Column("outcome", Text),
        Column("completed", BigInteger),
        Column("failed", BigInteger),
        Column("cancelled", BigInteger),
        PrimaryKeyConstraint("id", name="workflows_pkey"),
    )
    finished = text("finished_at is not null")
    Index("workflows_finished", workflows.c.finished_at, postgresql_where=finished)
    nodes = Table(
        "workflow_nodes",
        metadata,
        _required("job_id", BigInteger()),
        _required("workflow_id", BigInteger()),
        _required("name", Text()),
        Column("group_name", Text),
        _required("task", Text()),
        _required("parent_failed", Text(), "'cancel'"),
        _required("parent_cancelled", Text(), "'cancel'"),
        Column("waits_for", BigInteger),
        Column("outcome", Text),
        Column("result", JSONB),
        Column("started_at", _TIME),
        Column("finished_at", _TIME),
        PrimaryKeyConstraint("job_id", name="workflow_nodes_pkey"),
        UniqueConstraint("workflow_id", "name", name="workflow_nodes_name_key"),
    )
    Index("workflow_nodes_order", nodes.c.workflow_id, nodes.c.job_id)
    waiting = text("waits_for is not null")
    Index("workflow_nodes_waiting", nodes.c.waits_for, postgresql_where=waiting)
    dependencies = Table(
        "job_dependencies",
        metadata,
        _required("child_id", BigInteger()),
        _required("parent_id", BigInteger()),
        PrimaryKeyConstraint("child_id", "parent_id", name="job_dependencies_pkey"),
    )
    Index("job_dependencies_parent", dependencies.c.parent_id, dependencies.c.child_id)
    Table(
        "workflow_news",
        metadata,
        _identity(),
        _required("workflow_id", BigInteger()),
        _required("job_id", BigInteger()),
        _required("at", _TIME, "clock_now()"),
        PrimaryKeyConstraint("workflow_id", "id", name="workflow_news_pkey"),
    )


def _steps_tables(metadata: MetaData) -> None:
    steps = Table(
        "job_steps",
        metadata,
        _required("job_id", BigInteger()),
        _required("kind", Text()),
        _required("name", Text()),
        _required("attempt", Integer()),
        _required("created_at", _TIME, "clock_now()"),
        Column("finished_at", _TIME),
        Column("result", JSONB),
        Column("wake_at", _TIME),
        Column("event", Text),
        Column("event_key", Text),
        Column("event_id", BigInteger),
        PrimaryKeyConstraint("job_id", "kind", "name", name="job_steps_pkey"),
    )
    waiting = text("kind = 'wait' and finished_at is null")
    Index("job_steps_waiting", steps.c.event, steps.c.event_key, postgresql_where=waiting)
    came = text("event_id is not null")
    Index("job_steps_event", steps.c.job_id, steps.c.event_id, unique=True, postgresql_where=came)
    events = Table(
        "events",
        metadata,
        _identity(),
        _required("name", Text()),
        _required("key", Text()),
        _required("payload", JSONB(), "'null'"),
        _required("created_at", _TIME, "clock_now()"),
        Column("delivered_at", _TIME),
        PrimaryKeyConstraint("id", name="events_pkey"),
    )
    Index("events_of_key", events.c.name, events.c.key, events.c.id)
    is_new, is_old = text("delivered_at is null"), text("delivered_at is not null")
    Index("events_undelivered", events.c.created_at, events.c.id, postgresql_where=is_new)
    Index("events_delivered", events.c.delivered_at, postgresql_where=is_old)
