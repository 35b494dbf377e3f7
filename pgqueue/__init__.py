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
    HandlerCrashed,
    JobBusy,
    JobFailed,
    JobNotFound,
    LeaseLost,
    NotMigrated,
    PayloadInvalid,
    PgQueueError,
    ResultTimeout,
    RetryAfter,
    SchemaTooNew,
    Snooze,
    TaskUnknown,
    TooManyJobs,
    TransactionEnded,
    UniqueKeyBusy,
    UniqueKeyTaken,
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
    "HandlerCrashed",
    "Job",
    "JobBusy",
    "JobFailed",
    "JobFilter",
    "JobNotFound",
    "LeaseLost",
    "NotMigrated",
    "Operator",
    "PayloadInvalid",
    "PgQueue",
    "PgQueueError",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "SchemaTooNew",
    "Snooze",
    "State",
    "TaskUnknown",
    "TooManyJobs",
    "TransactionEnded",
    "UniqueKeyBusy",
    "UniqueKeyTaken",
    "WrongState",
    "ZoneInvalid",
    "__version__",
]
