"""Every exception pgqueue raises on purpose, as one tree.

PgQueueError
├── ConfigError              a setting or a definition is wrong (exit code 2)
│   ├── CronInvalid          a cron expression does not parse
│   ├── ZoneInvalid          no such IANA time zone
│   ├── ExtraMissing         an optional part is not installed
│   └── WorkflowInvalid      nodes of a workflow do not fit together
├── PayloadInvalid           arguments do not fit the task's signature
├── TaskUnknown              no task of that name is registered here
├── TooManyJobs              as many jobs of the tenant, or of the queue, wait as may
├── UniqueKeyTaken           another job holds the unique key (unique_mode="raise")
├── UniqueKeyBusy            an open transaction holds the unique key
├── JobNotFound              no job with that id, live or finished
├── ScheduleNotFound         no schedule of that name, no such window or backfill
├── WindowBusy               the window's last job still waits or runs
├── WorkflowNotFound         no workflow with that id, or a job that is in none
├── WorkflowEnded            nothing can be added to or cancelled in it any more
├── WorkflowBusy             somebody holds the workflow's row
├── JobDetached              a Job was asked what only a running handler's Job can do
├── JobBusy                  an open transaction holds the job's row
├── HandlerCrashed           the process of a handler died (isolation="process")
├── WrongState               the job is not in a state in which this can be done
├── JobFailed                the awaited job ended as failed or cancelled
├── ResultTimeout            the awaited job has not ended in time
├── EventTimeout             the event of job.wait_for has not come in time
├── LeaseLost                the job is no longer this worker's
├── TransactionEnded         a handler committed or rolled back what is ours to end
├── ChoreLost                a maintenance duty is in somebody else's hands
├── NotMigrated              the database lacks our tables, or holds older ones
├── SchemaTooNew             the database was migrated by a newer, incompatible pgqueue
├── SchemaTaken              a schema that would be made or dropped is somebody else's
├── DatabaseUnreachable      no connection, at start
├── WorkerNotStarted         a supervisor's first worker process was killed before it worked
└── EmbeddedFailed           the private Postgres could not be started

What a handler raises, or returns, to speak about its own job:

Verdict
├── RetryAfter(seconds)      try again then; counts as an attempt
├── Snooze(seconds)          try again then; counts as nothing
├── Cancel(reason)           stop here; the job ends as cancelled
└── Fail(reason)             stop here; the job ends as failed, without another attempt

Parked, a BaseException, is how job.sleep and job.wait_for leave a handler: not to be caught.

Errors are built from facts, kept as attributes; the message tells the next step.
"""

from __future__ import annotations

from pgqueue.verdicts import Cancel, Fail, Parked, RetryAfter, Snooze, Verdict

__all__ = ["Cancel", "Fail", "Parked", "RetryAfter", "Snooze", "Verdict"]

NAMED = 10
"""Ids that a message names."""


class PgQueueError(Exception):
    """Base of everything pgqueue raises on purpose."""


class ConfigError(PgQueueError, ValueError):
    """A setting or a definition is wrong."""


class CronInvalid(ConfigError):
    """A cron expression does not parse."""

    def __init__(self, expression: str, reason: str) -> None:
        self.expression = expression
        self.reason = reason
        super().__init__(f"cron expression {expression!r} is not valid: {reason}")


class ZoneInvalid(ConfigError):
    """No such IANA time zone."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        super().__init__(
            f"time zone {zone!r} is not known: "
            "use an IANA name such as 'Europe/Bratislava' or 'UTC'"
        )


class ExtraMissing(ConfigError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        self.what = what
        self.extra = extra
        super().__init__(f"{what} needs an extra: pip install 'pgqueue[{extra}]'")


class WorkflowInvalid(ConfigError):
    """Nodes of a workflow do not fit together: a circle, a name twice, or one that nobody has."""


class PayloadInvalid(PgQueueError, ValueError):
    """Arguments do not fit the task's signature; `problems` lists (place, message) pairs."""

    def __init__(self, task: str, problems: list[tuple[str, str]]) -> None:
        self.task = task
        self.problems = problems
        listed = "; ".join(f"{place}: {message}" for place, message in problems)
        super().__init__(f"payload of task {task!r} is not valid: {listed}")


class TaskUnknown(PgQueueError, LookupError):
    """No task of that name is registered here; `known` lists those that are."""

    def __init__(self, task: str, known: list[str]) -> None:
        self.task = task
        self.known = known
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"task {task!r} is not known here; known tasks: {listed}")


class TooManyJobs(PgQueueError):
    """As many jobs of the tenant or the queue wait as may: `limit`; the message says of which."""

    def __init__(self, message: str, limit: int = 0) -> None:
        self.limit = limit
        super().__init__(f"{message}: try again when some have run")


class UniqueKeyTaken(PgQueueError):
    """Another job holds the unique key; `job_id` is that job."""

    def __init__(self, message: str, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(message)


class UniqueKeyBusy(PgQueueError):
    """An open transaction held the unique key for longer than `wait` seconds."""

    def __init__(self, message: str, wait: float) -> None:
        self.wait = wait
        super().__init__(
            f"{message} (waited {wait:g} s): try again, or put keyed enqueues last in a transaction"
        )


class JobNotFound(PgQueueError, LookupError):
    """No job with that id, live or finished."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id} does not exist, or retention has dropped it")


class ScheduleNotFound(PgQueueError, LookupError):
    """No schedule of that name, or no such window or backfill; `look` is the command that lists."""

    def __init__(self, what: str, look: str = "pgq schedule list") -> None:
        self.what = what
        super().__init__(f"{what} does not exist: `{look}` shows what there is")


class WindowBusy(PgQueueError):
    """The window's last job still waits or runs, so it cannot be run again."""

    def __init__(self, window: str) -> None:
        self.window = window
        super().__init__(f"{window} still waits or runs: cancel its job, or wait for its end")


class WorkflowNotFound(PgQueueError, LookupError):
    """No workflow with that id, or the job `job_id` is in none."""

    def __init__(self, workflow_id: int | None, job_id: int | None = None) -> None:
        self.workflow_id = workflow_id
        self.job_id = job_id
        gone = f"workflow {workflow_id} does not exist, or retention has dropped it"
        super().__init__(gone if job_id is None else f"job {job_id} belongs to no workflow")


class WorkflowEnded(PgQueueError):
    """Nothing can be added to the workflow or cancelled in it any more; `why` says why."""

    def __init__(self, workflow_id: int, why: str) -> None:
        self.workflow_id = workflow_id
        self.why = why
        super().__init__(
            f"workflow {workflow_id} {why}: `pgq workflows retry {workflow_id}` runs again what "
            "did not complete"
        )


class WorkflowBusy(PgQueueError):
    """Somebody's transaction held the workflow's rows for longer than `wait` seconds."""

    def __init__(self, workflow_id: int, wait: float) -> None:
        self.workflow_id = workflow_id
        self.wait = wait
        super().__init__(
            f"workflow {workflow_id} is held by another transaction (waited {wait:g} s): "
            "nothing was changed; try again"
        )


class JobBusy(PgQueueError):
    """Somebody's open transaction held the rows of `job_ids` for longer than `wait` seconds."""

    def __init__(self, job_ids: tuple[int, ...], wait: float) -> None:
        self.job_ids = job_ids
        self.wait = wait
        named = ", ".join(str(job_id) for job_id in job_ids[:NAMED])
        more = f" and {len(job_ids) - NAMED} more" if len(job_ids) > NAMED else ""
        what = f"job {named} is" if len(job_ids) == 1 else f"jobs {named}{more} are"
        super().__init__(
            f"{what} held by an open transaction (waited {wait:g} s): nothing was changed in its "
            "batch; end that transaction, which pg_blocking_pids finds, or try again"
        )


class JobDetached(PgQueueError, RuntimeError):
    """A Job was asked what only that of a running handler, or one from an app, can do."""

    def __init__(self, job_id: int, why: str) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id} {why}")


class HandlerCrashed(PgQueueError):
    """The process of a handler died; `manner` says by which signal or exit code."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        super().__init__(f"the handler's process {manner}")


class WrongState(PgQueueError):
    """The job is not in a state in which this can be done; `state` is the one it is in."""

    def __init__(self, job_id: int, state: str, step: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"job {job_id} is {state}: {step}")


class JobFailed(PgQueueError):
    """The awaited job ended as failed or cancelled; `state` and `reason` say how."""

    def __init__(self, job_id: int, state: str, reason: str) -> None:
        self.job_id = job_id
        self.state = state
        self.reason = reason
        super().__init__(f"job {job_id} ended as {state}: {reason or 'no reason given'}")


class ResultTimeout(PgQueueError, TimeoutError):
    """The awaited job has not ended in time; it goes on."""

    def __init__(self, job_id: int, seconds: float) -> None:
        self.job_id = job_id
        self.seconds = seconds
        super().__init__(f"job {job_id} has not ended within {seconds:g} s; it goes on")


class EventTimeout(PgQueueError, TimeoutError):
    """The event that a job waited for has not come in time; every later try gets this, too."""

    def __init__(self, event: str, key: str, seconds: float | None) -> None:
        self.event = event
        self.key = key
        self.seconds = seconds
        within = "in time" if seconds is None else f"within {seconds:g} s"
        super().__init__(f"event {event!r} of {key!r} has not come {within}")


class LeaseLost(PgQueueError):
    """The job is no longer this worker's: it was rescued, cancelled or has ended."""

    def __init__(self, job_id: int, lease: int) -> None:
        self.job_id = job_id
        self.lease = lease
        super().__init__(
            f"job {job_id} is no longer held under lease {lease}; its effects roll back"
        )

    def is_of(self, job_id: int, lease: int) -> bool:
        """Whether it tells of this try: a handler may meet that of another job, or raise one."""
        return (self.job_id, self.lease) == (job_id, lease)


class TransactionEnded(PgQueueError):
    """A handler committed or rolled back the transaction it was given."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(
            f"the handler of job {job_id} ended the transaction it was given: "
            "leave commit and rollback to pgqueue, or use job.transaction()"
        )


class ChoreLost(PgQueueError):
    """A maintenance duty is in somebody else's hands."""

    def __init__(self, chore: str) -> None:
        self.chore = chore
        super().__init__(f"the chore {chore!r} is being done by somebody else: try again later")


class NotMigrated(PgQueueError):
    """The database lacks our tables, or holds older ones."""

    def __init__(self, schema: str, found: str | None = None) -> None:
        self.schema = schema
        self.found = found
        state = "has no pgqueue tables" if found is None else f"is at revision {found}"
        super().__init__(f"the database {state} in schema {schema!r}: run `pgq migrate`")


class SchemaTooNew(PgQueueError):
    """The database was migrated by a newer, incompatible pgqueue."""

    def __init__(self, schema: str, found: str) -> None:
        self.schema = schema
        self.found = found
        super().__init__(
            f"schema {schema!r} is at {found}, which this pgqueue does not know: "
            "upgrade the pgqueue package"
        )


class SchemaTaken(PgQueueError):
    """A schema that would be made or dropped is somebody else's; `why` says what was found."""

    def __init__(self, schema: str, why: str) -> None:
        self.schema = schema
        self.why = why
        super().__init__(f"schema {schema!r} {why}")


class DatabaseUnreachable(PgQueueError):
    """No connection at start; `target` never holds a password."""

    def __init__(self, target: str, reason: str) -> None:
        self.target = target
        self.reason = reason
        super().__init__(f"cannot connect to {target}: {reason}")


class WorkerNotStarted(PgQueueError):
    """A supervisor's first worker process was killed before it worked; `manner` says how."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        super().__init__(
            f"no worker process could start: the first one {manner}; "
            "try the same command with --processes 1"
        )


class EmbeddedFailed(PgQueueError):
    """The private Postgres could not be started."""
