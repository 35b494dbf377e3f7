"""pgq schedule: tick, list, next, history, add, edit, pause, resume, run, remove."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..common import AppOption, JsonOption, load_app, parsed_json, print_json, ready_app, shown
from ..operating import instant, operator, plain, safe, safe_table

app = typer.Typer(
    help="Schedules: cron expressions and windows.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = (
    "name", "cron", "timezone", "task", "enabled", "next_run_at", "last_run_at", "paused_by",
    "pause_reason", "last_error",
)  # fmt: skip
HISTORY = ("id", "window_start", "window_end", "mode", "run", "state", "lag", "duration", "job_id")
BARS = "▁▂▃▄▅▆▇█"
FAILED = {"failed": "✗", "cancelled": "✗", "lost": "✗", "skipped": "·"}

NameArgument = Annotated[str, typer.Argument(help="The schedule's name.")]
TimezoneOption = Annotated[str | None, typer.Option(help="An IANA time zone; UTC.")]
PayloadOption = Annotated[str | None, typer.Option(help="Arguments as a JSON object.")]
QueueOption = Annotated[str | None, typer.Option(help="Another queue than the task's.")]
PriorityOption = Annotated[int | None, typer.Option(help="Another priority, 0 to 9.")]
TagOption = Annotated[list[str] | None, typer.Option(help="A tag of its jobs; may be repeated.")]
TenantOption = Annotated[str | None, typer.Option(help="Whose work it is.")]
TimeoutOption = Annotated[float | None, typer.Option(help="Seconds that a job may run.")]
CatchUpOption = Annotated[
    str | None, typer.Option(help="After a pause: `all` missed windows, the `latest`, or `none`.")
]
MaxAgeOption = Annotated[
    float | None, typer.Option(help="Make up for no window older than so many seconds.")
]
MaxCountOption = Annotated[
    int | None, typer.Option(help="Make up for the newest so many windows at most.")
]
OverlapOption = Annotated[
    str | None,
    typer.Option(help="While one is under way: `queue`, `skip`, `cancel-running` or `allow`."),
]
DelayOption = Annotated[float | None, typer.Option(help="Seconds from a window's end to its job.")]
JitterOption = Annotated[float | None, typer.Option(help="Up to so many seconds on top, spread.")]
StartsOption = Annotated[str | None, typer.Option(help="Fires from then on: day or ISO 8601.")]
EndsOption = Annotated[str | None, typer.Option(help="Fires until then: day or ISO 8601.")]
ModeOption = Annotated[
    str | None, typer.Option(help="`window`, or `since-last-run`: from the last success on.")
]
AfterOption = Annotated[
    str | None, typer.Option(help="Wait for the same window of this schedule to be completed.")
]


@app.command("tick")
def tick(json: JsonOption = False, app: AppOption = None) -> None:
    """Do one pass over due schedules and exit: insert their windows, one job for each.

    Any number may run at once; a window is inserted once.

    Example: pgq schedule tick --json
    """
    pgq = load_app(app)
    ticked = pgq.tick()
    pgq.close()
    if json:
        print_json({"windows": ticked.windows, "jobs": ticked.jobs})
    else:
        typer.echo(f"{ticked.windows} windows, {ticked.jobs} jobs")


@app.command("list")
def list_(json: JsonOption = False, app: AppOption = None) -> None:
    """List the stored schedules.

    Example: pgq schedule list
    """
    pgq = load_app(app)
    rows = pgq.list_schedules()
    pgq.close()
    if json:
        print_json(rows)
    else:
        safe_table(rows, SHOWN, "no schedules: pgq schedule add NAME --cron … --task …")


@app.command("next")
def next_(
    name: NameArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 10,
    after: Annotated[str | None, typer.Option(help="From then on: day or ISO 8601.")] = None,
    json: JsonOption = False,
    app: AppOption = None,
) -> None:
    """Show when a schedule fires next, in its own time zone and in UTC.

    Example: pgq schedule next digest -n 5
    """
    from zoneinfo import ZoneInfo

    pgq = ready_app(app)
    fires, timezone = pgq.next_fires(name, count, after=instant(after, "--after"))
    pgq.close()
    rows = [
        {
            "utc": fire.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "local": fire.astimezone(ZoneInfo(timezone)).isoformat(),
        }
        for fire in fires
    ]
    if json:
        print_json(rows)
    else:
        typer.echo(f"{timezone}")
        safe_table(rows, ("local", "utc"), "it never fires again")


@app.command("history")
def history(
    name: NameArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many windows.")] = 20,
    json: JsonOption = False,
    app: AppOption = None,
) -> None:
    """Show what became of a schedule's windows: how late each began and how long it took.

    Example: pgq schedule history digest
    """
    pgq = ready_app(app)
    rows = pgq.list_windows(name, limit=count)
    pgq.close()
    if json:
        print_json(plain(rows))
        return
    safe_table(rows, HISTORY, "no windows yet")
    if rows:
        typer.echo(f"duration, oldest first: {sparkline(rows)}")


def sparkline(rows: list[dict[str, Any]]) -> str:
    """One sign for each window, oldest first: a bar for its duration, ✗ failed, · left out."""
    taken = [row["duration"].total_seconds() for row in rows if row["duration"] is not None]
    most = max(taken, default=0.0) or 1.0
    signs = []
    for row in reversed(rows):
        if row["state"] in FAILED:
            signs.append(FAILED[row["state"]])
        elif row["duration"] is None:
            signs.append(" ")
        else:
            share = max(0.0, row["duration"].total_seconds()) / most
            signs.append(BARS[min(len(BARS) - 1, int(share * len(BARS)))])
    return "".join(signs)


def _given(
    payload: str | None, starts: str | None, ends: str | None, **rest: Any
) -> dict[str, Any]:
    """The options that were given, as the app takes them."""
    options = {
        "payload": None if payload is None else parsed_json(payload, "the payload"),
        "starts_at": instant(starts, "--starts"),
        "ends_at": instant(ends, "--ends"),
        **rest,
    }
    return {name: value for name, value in options.items() if value is not None}


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Its name; a schedule of that name is changed.")],
    cron: Annotated[
        str, typer.Option(help="A cron expression, such as '0 6,14,22 * * *', or '@every 8h'.")
    ],
    task: Annotated[str, typer.Option(help="The task to enqueue for each window.")],
    timezone: TimezoneOption = None,
    payload: PayloadOption = None,
    queue: QueueOption = None,
    priority: PriorityOption = None,
    tag: TagOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = None,
    catch_up: CatchUpOption = None,
    max_age: MaxAgeOption = None,
    max_count: MaxCountOption = None,
    overlap: OverlapOption = None,
    delay: DelayOption = None,
    jitter: JitterOption = None,
    starts: StartsOption = None,
    ends: EndsOption = None,
    mode: ModeOption = None,
    after: AfterOption = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Add a schedule, or change the one of that name; what is not given becomes the default.

    Example: pgq schedule add digest --cron '0 6,14,22 * * *' --timezone Europe/Bratislava
    --task run-window --payload '{"user_id": 1, "topic_id": 1}'
    """
    given = _given(
        payload, starts, ends, timezone=timezone, queue=queue, priority=priority, tags=tag,
        tenant=tenant, timeout=timeout, catch_up=catch_up, catch_up_max_age=max_age,
        catch_up_max_count=max_count, overlap=overlap, delay=delay, jitter=jitter, window_mode=mode,
        after=after,
    )  # fmt: skip
    pgq = load_app(app)
    stored = pgq.put_schedule(name, cron=cron, task=task, by=operator(), **given)
    pgq.close()
    if json:
        print_json({"id": stored.id, "name": name, "next_run_at": stored.next_run_at})
    else:
        verb = "added" if stored.is_new else "changed"
        typer.echo(f"schedule {safe(name)} {verb}; next at {shown(stored.next_run_at)}")


@app.command("edit")
def edit(
    name: NameArgument,
    cron: Annotated[str | None, typer.Option(help="Another cron expression.")] = None,
    task: Annotated[str | None, typer.Option(help="Another task.")] = None,
    timezone: TimezoneOption = None,
    payload: PayloadOption = None,
    queue: QueueOption = None,
    priority: PriorityOption = None,
    tag: TagOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = None,
    catch_up: CatchUpOption = None,
    max_age: MaxAgeOption = None,
    max_count: MaxCountOption = None,
    overlap: OverlapOption = None,
    delay: DelayOption = None,
    jitter: JitterOption = None,
    starts: StartsOption = None,
    ends: EndsOption = None,
    mode: ModeOption = None,
    after: AfterOption = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Change what is given of a schedule, and leave the rest.

    Example: pgq schedule edit digest --overlap skip --delay 300
    """
    given = _given(
        payload, starts, ends, cron=cron, task=task, timezone=timezone, queue=queue,
        priority=priority, tags=tag, tenant=tenant, timeout=timeout, catch_up=catch_up,
        catch_up_max_age=max_age, catch_up_max_count=max_count, overlap=overlap, delay=delay,
        jitter=jitter, window_mode=mode, after=after,
    )  # fmt: skip
    pgq = ready_app(app)
    stored = pgq.edit_schedule(name, by=operator(), **given)
    pgq.close()
    if json:
        print_json({"id": stored.id, "name": name, "next_run_at": stored.next_run_at})
    else:
        typer.echo(f"schedule {safe(name)} changed; next at {shown(stored.next_run_at)}")


@app.command("pause")
def pause(
    name: NameArgument,
    reason: Annotated[str | None, typer.Option(help="Why; shown to others.")] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Let a schedule fire no more; jobs that exist go on.

    Example: pgq schedule pause digest --reason 'the feeds are down'
    """
    pgq = ready_app(app)
    changed = pgq.pause_schedule(name, reason=reason, by=operator())
    pgq.close()
    if json:
        print_json({"name": name, "enabled": False, "changed": changed})
    else:
        typer.echo(f"schedule {safe(name)} {'is' if changed else 'was already'} paused")


@app.command("resume")
def resume(name: NameArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Let a paused schedule fire again; its catch-up policy says what it makes up for.

    Example: pgq schedule resume digest
    """
    pgq = ready_app(app)
    changed = pgq.resume_schedule(name, by=operator())
    pgq.close()
    if json:
        print_json({"name": name, "enabled": True, "changed": changed})
    else:
        typer.echo(f"schedule {safe(name)} {'goes on' if changed else 'was not paused'}")


@app.command("run")
def run(name: NameArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Run a schedule now, from its last fire until now; its regular window comes all the same.

    Example: pgq schedule run digest
    """
    pgq = ready_app(app)
    job_id = pgq.run_schedule(name, by=operator())
    pgq.close()
    if json:
        print_json({"name": name, "job_id": job_id})
    else:
        typer.echo(f"schedule {safe(name)} runs as job {job_id}")


@app.command("remove")
def remove(name: NameArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Remove a schedule and its windows; jobs that are queued or run go on.

    Example: pgq schedule remove digest
    """
    pgq = ready_app(app)
    pgq.remove_schedule(name, by=operator())
    pgq.close()
    if json:
        print_json({"name": name, "removed": True})
    else:
        typer.echo(f"schedule {safe(name)} is removed")
