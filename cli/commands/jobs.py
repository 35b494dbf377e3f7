"""pgq jobs: list, show, why, retry, replay, cancel, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import AppOption, JsonOption, parsed_json, print_json, ready_app
from ..operating import (
    LARGEST_ID,
    MANY,
    DryRunOption,
    IdArgument,
    IdsArgument,
    LimitOption,
    OptionalIdsArgument,
    QueueOption,
    ReasonOption,
    SinceOption,
    StateOption,
    StatusOption,
    TagOption,
    TaskOption,
    TenantOption,
    UntilOption,
    WorkflowOption,
    job_filter,
    operator,
    plain,
    safe,
    safe_table,
    say_ids,
)

if TYPE_CHECKING:
    from pgqueue import JobFilter
    from pgqueue.engine.retry_jobs import Preview, Retried

app = typer.Typer(
    help="Jobs: see them, and run, stop or delete them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EXIT_FAILED = 1
SHOWN = ("id", "task", "queue", "status", "attempt", "created_at", "finished_at", "reason")


@app.command("list")
def list_(
    state: StateOption = None,
    status: StatusOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    tenant: TenantOption = None,
    tag: TagOption = None,
    reason: ReasonOption = None,
    workflow: WorkflowOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs on a page.")] = 50,
    before: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_ID, help="The next page: the last id of this one."),
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, live and finished, newest first.

    Example: pgq jobs list --state failed --task send-welcome --since 24h
    """
    wanted = job_filter(
        state=state, status=status, task=task, queue=queue, tenant=tenant, tag=tag, reason=reason,
        workflow_id=workflow, since=since, until=until,
    )  # fmt: skip
    pgq = ready_app(app)
    rows = pgq.list_jobs(wanted, limit=limit, before=before)
    pgq.close()
    if json:
        print_json(plain(rows))
        return
    _print_jobs(rows, "no such jobs")
    if len(rows) == limit:
        typer.echo(f"the next page: --before {rows[-1]['id']}")


@app.command("show")
def show(job_id: IdArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Show a job: its fields, what happened to it, its log, and why it does not run.

    Example: pgq jobs show 42
    """
    from ..showing import print_job

    pgq = ready_app(app)
    job = pgq.show_job(job_id)
    causes = [_cause(cause) for cause in pgq.why(job_id)]
    pgq.close()
    if json:
        print_json(plain({**job, "why": causes}))
    else:
        print_job(job, causes)


@app.command("why")
def why(job_id: IdArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Say why a job does not run, each cause on a line. Exit code 1 when there is no such job.

    Example: pgq jobs why 42
    """
    from ..showing import print_causes

    pgq = ready_app(app)
    causes = [_cause(cause) for cause in pgq.why(job_id)]
    pgq.close()
    if json:
        print_json(causes)
    else:
        print_causes(causes)
    if causes[0]["cause"] == "not-found":
        raise typer.Exit(EXIT_FAILED)


@app.command("retry")
def retry(
    job_ids: OptionalIdsArgument = None,
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    tenant: TenantOption = None,
    tag: TagOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget the durable steps that are done.")
    ] = False,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run failed and cancelled jobs again under their ids; by ids, or all that fit a filter.

    A job that waits for its time runs now. One that is due or running is left alone, so retrying
    twice is retrying once. Exit code 1 when a job is missing or refused.

    Example: pgq jobs retry 42        pgq jobs retry --task send-welcome --since 24h --dry-run
    """
    wanted = job_filter(
        state=state, task=task, queue=queue, tenant=tenant, tag=tag, reason=reason, since=since,
        until=until,
    )  # fmt: skip
    _check_choice(job_ids, wanted, dry_run=dry_run, limit=limit)
    pgq = ready_app(app)
    done: Retried | Preview
    if job_ids:
        done = pgq.retry(*job_ids, from_start=from_start, by=operator())
    elif dry_run:
        done = pgq.preview_retry(wanted, limit=limit)
    else:
        done = pgq.retry_many(wanted, limit=limit, from_start=from_start, by=operator())
    pgq.close()
    _tell_retry(done, json)


@app.command("replay")
def replay(
    job_id: Annotated[
        int | None, typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="A job's id.")
    ] = None,
    payload: Annotated[
        str | None, typer.Option(help="Another payload, a JSON object; with an id only.")
    ] = None,
    merge: Annotated[
        str | None, typer.Option(help="Changes to the payload, a JSON object; null removes.")
    ] = None,
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    tenant: TenantOption = None,
    tag: TagOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run finished jobs again under their ids, with edited payloads if you like.

    By a filter, completed jobs are taken only with --state completed. Exit code 1 when a job is
    missing or refused.

    Example: pgq jobs replay 42 --merge '{"url": "https://example.com/moved"}'
    """
    from pgqueue.errors import ConfigError

    new = None if payload is None else parsed_json(payload, "--payload")
    changes = None if merge is None else parsed_json(merge, "--merge")
    wanted = job_filter(
        state=state, task=task, queue=queue, tenant=tenant, tag=tag, reason=reason, since=since,
        until=until,
    )  # fmt: skip
    _check_choice([job_id] if job_id else None, wanted, dry_run=dry_run, limit=limit)
    if new is not None and not job_id:
        raise ConfigError("--payload goes with an id; use --merge for many jobs")
    pgq = ready_app(app)
    done: Retried | Preview
    if job_id:
        pgq.replay(job_id, new, merge=changes, by=operator())
        done = _one_retried(job_id)
    elif dry_run:
        done = pgq.preview_replay(wanted, limit=limit)
    else:
        done = pgq.replay_many(wanted, merge=changes, limit=limit, by=operator())
    pgq.close()
    _tell_retry(done, json)


@app.command("cancel")
def cancel(job_ids: IdsArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Cancel jobs: waiting ones end at once, running ones are told to stop.

    Exit code 1 when one is not live.

    Example: pgq jobs cancel 42 43
    """
    pgq = ready_app(app)
    done = pgq.cancel(*job_ids, by=operator())
    pgq.close()
    if json:
        print_json({"cancelled": done.ended, "marked": done.marked, "missing": done.missing})
    else:
        say_ids("cancelled", done.ended)
        say_ids("running, told to stop", done.marked)
        say_ids("not live", done.missing)
    _exit_unless(not done.missing)


@app.command("delete")
def delete(job_ids: IdsArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Delete jobs that do not run, with their logs. Exit code 1 when one is running or missing.

    Example: pgq jobs delete 42 43
    """
    pgq = ready_app(app)
    done = pgq.delete(*job_ids, by=operator())
    pgq.close()
    if json:
        print_json({"deleted": done.deleted, "running": done.running, "missing": done.missing})
    else:
        say_ids("deleted", done.deleted)
        say_ids("running, not deleted: cancel first", done.running)
        say_ids("not found", done.missing)
    _exit_unless(not done.missing and not done.running)


def _check_choice(
    job_ids: list[int] | None, wanted: JobFilter, *, dry_run: bool, limit: int | None
) -> None:
    from pgqueue.errors import ConfigError

    if bool(job_ids) is bool(wanted.given):
        raise ConfigError("say which jobs: ids, or a filter such as --state failed --task NAME")
    if job_ids and (dry_run or limit):
        raise ConfigError("--dry-run and --limit go with a filter, not with ids")


def _one_retried(job_id: int) -> Retried:
    from pgqueue.engine.retry_jobs import Retried

    return Retried(retried=(job_id,))


def _tell_retry(done: Retried | Preview, as_json: bool) -> None:
    from pgqueue.engine.retry_jobs import Preview

    if isinstance(done, Preview):
        if as_json:
            print_json(plain({"count": done.count, "sample": done.sample}))
            return
        _print_jobs(done.sample, "no such jobs")
        typer.echo(f"would run again: {done.count}; nothing was changed")
        return
    refused = [{"id": job_id, "reason": why} for job_id, why in sorted(done.refused.items())]
    if as_json:
        print_json(
            {
                "retried": done.retried,
                "run_now": done.hurried,
                "live": done.live,
                "refused": refused,
                "missing": done.missing,
            }
        )
    else:
        _say_retried(done)
    _exit_unless(not refused and not done.missing)


def _say_retried(done: Retried) -> None:
    if not (done.retried or done.hurried):
        typer.echo("nothing came back")
    say_ids("queued again", done.retried)
    say_ids("due now", done.hurried)
    say_ids("left alone, due or running", done.live)
    say_ids("not found", done.missing)
    refused = sorted(done.refused.items())
    for job_id, reason in refused[:MANY]:
        typer.echo(f"job {job_id} refused: {safe(reason)}")
    if len(refused) > MANY:
        typer.echo(f"and {len(refused) - MANY} more refused: --json names them all")


def _print_jobs(rows: list[dict[str, Any]], empty: str) -> None:
    safe_table([{**row, "reason": _reason_of(row)} for row in rows], SHOWN, empty)


def _reason_of(row: Mapping[str, Any]) -> str | None:
    # A completed job got over what it met.
    if row["state"] == "completed" or not row["errors"]:
        return None
    reason: str | None = row["errors"][-1].get("reason")
    return reason


def _cause(cause: Any) -> dict[str, Any]:
    return {"cause": cause.cause, "message": cause.message, "details": dict(cause.details)}


def _exit_unless(fine: bool) -> None:
    if not fine:
        raise typer.Exit(EXIT_FAILED)
