"""Background jobs, cron and time-window pipelines in the Postgres you already run. No Redis."""

from __future__ import annotations

from pgqueue.app import PgQueue
from pgqueue.engine.filters import JobFilter
from pgqueue.engine.operate import Operator
from pgqueue.errors import (
    Cancel,
    ConfigError,
    CronInvalid,
    DatabaseUnreachable,
    EmbeddedFailed,
    ExtraMissing,
    Fail,
    JobNotFound,
    LeaseLost,
    NotMigrated,
    PayloadInvalid,
    PgQueueError,
    RetryAfter,
    SchemaTooNew,
    Snooze,
    TaskUnknown,
    TransactionEnded,
    WrongState,
    ZoneInvalid,
)
from pgqueue.job import Job, Retry, State
from pgqueue.version import __version__

__all__ = [
    "Cancel",
    "ConfigError",
    "CronInvalid",
    "DatabaseUnreachable",
    "EmbeddedFailed",
    "ExtraMissing",
    "Fail",
    "Job",
    "JobFilter",
    "JobNotFound",
    "LeaseLost",
    "NotMigrated",
    "Operator",
    "PayloadInvalid",
    "PgQueue",
    "PgQueueError",
    "Retry",
    "RetryAfter",
    "SchemaTooNew",
    "Snooze",
    "State",
    "TaskUnknown",
    "TransactionEnded",
    "WrongState",
    "ZoneInvalid",
    "__version__",
]
