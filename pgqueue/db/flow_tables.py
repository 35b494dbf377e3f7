"""The tables of workflows and of durable steps; see tables.py."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pgqueue.db.columns import TIME, identity, required


def workflow_tables(metadata: MetaData) -> None:
    """Workflows, their nodes and edges, and what is told of them."""
    workflows = Table(
        "workflows",
        metadata,
        identity(),
        required("name", Text()),
        required("created_at", TIME, "clock_now()"),
        Column("open_job_id", BigInteger),
        Column("cancelled_at", TIME),
        Column("finished_at", TIME),
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
        required("job_id", BigInteger()),
        required("workflow_id", BigInteger()),
        required("name", Text()),
        Column("group_name", Text),
        required("task", Text()),
        required("parent_failed", Text(), "'cancel'"),
        required("parent_cancelled", Text(), "'cancel'"),
        Column("waits_for", BigInteger),
        Column("outcome", Text),
        Column("result", JSONB),
        Column("started_at", TIME),
        Column("finished_at", TIME),
        PrimaryKeyConstraint("job_id", name="workflow_nodes_pkey"),
        UniqueConstraint("workflow_id", "name", name="workflow_nodes_name_key"),
    )
    Index("workflow_nodes_order", nodes.c.workflow_id, nodes.c.job_id)
    waiting = text("waits_for is not null")
    Index("workflow_nodes_waiting", nodes.c.waits_for, nodes.c.job_id, postgresql_where=waiting)
    dependencies = Table(
        "job_dependencies",
        metadata,
        required("child_id", BigInteger()),
        required("parent_id", BigInteger()),
        PrimaryKeyConstraint("child_id", "parent_id", name="job_dependencies_pkey"),
    )
    Index("job_dependencies_parent", dependencies.c.parent_id, dependencies.c.child_id)
    Table(
        "workflow_news",
        metadata,
        identity(),
        required("workflow_id", BigInteger()),
        required("job_id", BigInteger()),
        required("at", TIME, "clock_now()"),
        PrimaryKeyConstraint("workflow_id", "id", name="workflow_news_pkey"),
    )


def step_tables(metadata: MetaData) -> None:
    """Durable steps, and the events that jobs wait for."""
    steps = Table(
        "job_steps",
        metadata,
        required("job_id", BigInteger()),
        required("kind", Text()),
        required("name", Text()),
        required("attempt", Integer()),
        required("created_at", TIME, "clock_now()"),
        Column("finished_at", TIME),
        Column("result", JSONB),
        Column("wake_at", TIME),
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
        identity(),
        required("name", Text()),
        required("key", Text()),
        required("payload", JSONB(), "'null'"),
        required("created_at", TIME, "clock_now()"),
        Column("delivered_at", TIME),
        PrimaryKeyConstraint("id", name="events_pkey"),
    )
    Index("events_of_key", events.c.name, events.c.key, events.c.created_at, events.c.id)
    is_new, is_old = text("delivered_at is null"), text("delivered_at is not null")
    Index("events_undelivered", events.c.created_at, events.c.id, postgresql_where=is_new)
    Index("events_delivered", events.c.delivered_at, postgresql_where=is_old)
