"""The queue's schema in SQLAlchemy Core: what `alembic check` holds the migrations against.

Functions, views, CHECKs and partitions are invisible to Alembic; the reviewed snapshot in
tests/project/schema.sql holds those.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
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

from pgqueue.db.columns import TIME, identity, required
from pgqueue.db.flow_tables import step_tables, workflow_tables
from pgqueue.db.limit_tables import limit_indexes, limit_tables


def queue_metadata(schema: str) -> MetaData:
    """The tables of the queue in the schema of that name."""
    metadata = MetaData(schema=schema)
    _settings_tables(metadata)
    _jobs_tables(metadata)
    limit_tables(metadata)
    _schedule_tables(metadata)
    _maintenance_tables(metadata)
    workflow_tables(metadata)
    step_tables(metadata)
    return metadata


def _settings_tables(metadata: MetaData) -> None:
    Table(
        "schema_info",
        metadata,
        required("one", Boolean(), "true"),
        required("version", Integer()),
        required("min_compatible", Integer()),
        PrimaryKeyConstraint("one", name="schema_info_pkey"),
    )
    Table(
        "queues",
        metadata,
        required("name", Text()),
        required("paused", Boolean(), "false"),
        required("created_at", TIME, "clock_now()"),
        Column("paused_at", TIME),
        Column("paused_by", Text),
        Column("pause_reason", Text),
        required("limited", Boolean(), "false"),
        Column("max_queued", Integer),
        PrimaryKeyConstraint("name", name="queues_pkey"),
    )
    Table(
        "workers",
        metadata,
        identity(),
        required("host", Text()),
        required("pid", Integer()),
        required("version", Text()),
        required("queues", ARRAY(Text)),
        required("concurrency", Integer()),
        required("tasks", ARRAY(Text), "'{}'"),
        required("started_at", TIME, "clock_now()"),
        required("heartbeat_at", TIME, "clock_now()"),
        required("started_jobs", ARRAY(BigInteger), "'{}'"),
        PrimaryKeyConstraint("id", name="workers_pkey"),
    )


def _jobs_tables(metadata: MetaData) -> None:
    jobs = Table(
        "jobs",
        metadata,
        identity(),
        required("task", Text()),
        required("queue", Text()),
        required("priority", SmallInteger(), "5"),
        required("state", Text(), "'queued'"),
        required("payload", JSONB(), "'{}'"),
        Column("tenant", Text),
        required("tags", ARRAY(Text), "'{}'"),
        Column("unique_key", Text),
        required("limits", ARRAY(Text), "'{}'"),
        Column("blocked_on", Text),
        required("run_at", TIME, "clock_now()"),
        required("scheduled_at", TIME, "clock_now()"),
        required("attempt", Integer(), "0"),
        required("max_attempts", Integer(), "1"),
        Column("lease", BigInteger),
        Column("worker_id", BigInteger),
        Column("started_at", TIME),
        required("created_at", TIME, "clock_now()"),
        Column("timeout", Double),
        required("errors", JSONB(), "'[]'"),
        Column("progress", JSONB),
        required("headers", JSONB(), "'{}'"),
        Column("workflow_id", BigInteger),
        Column("cancel_requested_at", TIME),
        Column("expires_at", TIME),
        required("crashes", Integer(), "0"),
        required("suspect", Boolean(), "false"),
        Column("admitted_seq", BigInteger),
        Column("order_name", Text),
        PrimaryKeyConstraint("id", name="jobs_pkey"),
    )
    limit_indexes(jobs)
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
        required("finished_at", TIME, "clock_now()"),
        Column("result", JSONB),
        PrimaryKeyConstraint("id", "finished_at", "state", name="finished_jobs_pkey"),
    )


def _schedule_tables(metadata: MetaData) -> None:
    schedules = Table(
        "schedules",
        metadata,
        identity(),
        required("name", Text()),
        required("cron", Text()),
        required("timezone", Text(), "'UTC'"),
        required("task", Text()),
        required("queue", Text(), "'default'"),
        required("payload", JSONB(), "'{}'"),
        required("enabled", Boolean(), "true"),
        required("catch_up", Text(), "'all'"),
        required("overlap", Text(), "'queue'"),
        required("delay", Double(), "0"),
        required("max_attempts", Integer(), "1"),
        required("window_parameters", ARRAY(Text), "'{}'"),
        required("next_run_at", TIME),
        Column("last_run_at", TIME),
        required("created_at", TIME, "clock_now()"),
        required("failures", Integer(), "0"),
        Column("last_error", Text),
        Column("retry_at", TIME),
        required("priority", SmallInteger(), "5"),
        required("tags", ARRAY(Text), "'{}'"),
        Column("tenant", Text),
        Column("timeout", Double),
        required("window_mode", Text(), "'window'"),
        Column("catch_up_max_age", Double),
        Column("catch_up_max_count", Integer),
        required("jitter", Double(), "0"),
        Column("starts_at", TIME),
        Column("ends_at", TIME),
        Column("after_id", BigInteger),
        required("declared", Boolean(), "false"),
        Column("paused_at", TIME),
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
        identity(),
        required("schedule_id", BigInteger()),
        required("range_start", TIME),
        required("range_end", TIME),
        required("concurrency", Integer(), "1"),
        required("reached", TIME),
        required("created_at", TIME, "clock_now()"),
        required("created_by", Text()),
        Column("cancelled_at", TIME),
        Column("finished_at", TIME),
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
        identity(),
        required("schedule_id", BigInteger()),
        required("window_start", TIME),
        required("window_end", TIME),
        required("mode", Text(), "'window'"),
        Column("job_id", BigInteger),
        required("run", Integer(), "1"),
        required("created_at", TIME, "clock_now()"),
        required("held", Boolean(), "false"),
        Column("due_at", TIME),
        Column("backfill_id", BigInteger),
        Column("outcome", Text),
        Column("started_at", TIME),
        Column("finished_at", TIME),
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
        required("key", Text()),
        required("job_id", BigInteger()),
        required("until", TIME),
        PrimaryKeyConstraint("key", name="unique_keys_pkey"),
    )
    Index("unique_keys_until", unique_keys.c.until)
    Table(
        "quotas",
        metadata,
        required("tenant", Text()),
        required("max_waiting", Integer()),
        PrimaryKeyConstraint("tenant", name="quotas_pkey"),
    )
    job_logs = Table(
        "job_logs",
        metadata,
        identity(),
        required("job_id", BigInteger()),
        required("attempt", Integer()),
        required("at", TIME, "clock_now()"),
        required("level", Text(), "'info'"),
        required("message", Text()),
        PrimaryKeyConstraint("id", name="job_logs_pkey"),
    )
    Index("job_logs_job", job_logs.c.job_id, job_logs.c.id)
    audit_log = Table(
        "audit_log",
        metadata,
        identity(),
        required("at", TIME, "clock_now()"),
        required("who", Text()),
        required("source", Text()),
        required("action", Text()),
        required("target", Text()),
        required("details", JSONB(), "'{}'"),
        PrimaryKeyConstraint("id", name="audit_log_pkey"),
    )
    Index("audit_log_at", audit_log.c.at)
    Table(
        "retention",
        metadata,
        required("state_group", Text()),
        required("keep", Interval()),
        Column("keep_count", BigInteger),
        PrimaryKeyConstraint("state_group", name="retention_pkey"),
    )
    Table(
        "chores",
        metadata,
        required("name", Text()),
        required("every", Interval()),
        required("due_at", TIME, "clock_now()"),
        Column("taken_until", TIME),
        Column("taken_by", BigInteger),
        Column("last_run_at", TIME),
        Column("last_seconds", Double),
        Column("last_error", Text),
        PrimaryKeyConstraint("name", name="chores_pkey"),
    )
