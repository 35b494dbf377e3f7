"""pgq schedule: tick, list, next, history, add, edit, pause, resume, run, remove."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from ..common import AppOption, JsonOption, load_app, parsed_json, print_json, ready_app, shown
from ..operating import moment, operator, plain, safe, safe_table

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


def _policies(
    *,
    timezone: Annotated[str | None, typer.Option(help="An IANA time zone; UTC.")] = None,
    payload: Annotated[str | None, typer.Option(help="Arguments as a JSON object.")] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's.")] = None,
    priority: Annotated[int | None, typer.Option(help="Another priority, 0 to 9.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag of its jobs; may be repeated.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose work it is.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a job may run.")] = None,
    catch_up: Annotated[
        str | None,
        typer.Option(help="After a pause: `all` missed windows, the `latest`, or `none`."),
    ] = None,
    max_age: Annotated[
        float | None, typer.Option(help="Make up for no window older than so many seconds.")
    ] = None,
    max_count: Annotated[
        int | None, typer.Option(help="Make up for the newest so many windows at most.")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(help="While one is under way: `queue`, `skip`, `cancel-running` or `allow`."),
    ] = None,
    delay: Annotated[
        float | None, typer.Option(help="Seconds from a window's end to its job.")
    ] = None,
    jitter: Annotated[
        float | None, typer.Option(help="Up to so many seconds on top, spread.")
    ] = None,
    starts: Annotated[
        str | None, typer.Option(help="Fires from then on: day in its zone, or ISO 8601.")
    ] = None,
    ends: Annotated[
        str | None, typer.Option(help="Fires until then: day in its zone, or ISO 8601.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="`window`, or `since-last-run`: from the last success on.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Wait for the same window of this schedule to be completed.")
    ] = None,
) -> dict[str, Any]:
    """The options that were given, as the app takes them."""
    options = {
        "payload": None if payload is None else parsed_json(payload, "the payload"),
        "starts_at": moment(starts, "--starts"),
        "ends_at": moment(ends, "--ends"),
        "timezone": timezone, "queue": queue, "priority": priority, "tags": tag, "tenant": tenant,
        "timeout": timeout, "catch_up": catch_up, "catch_up_max_age": max_age,
        "catch_up_max_count": max_count, "overlap": overlap, "delay": delay, "jitter": jitter,
        "window_mode": mode, "after": after,
    }  # fmt: skip
    return {name: value for name, value in options.items() if value is not None}


COLUMNS = {
    "tag": "tags", "max-age": "catch_up_max_age", "max-count": "catch_up_max_count",
    "starts": "starts_at", "ends": "ends_at", "mode": "window_mode",
}  # fmt: skip
"""Options of the command line that are called otherwise in code."""
OPTIONS = tuple(name.replace("_", "-") for name in inspect.signature(_policies).parameters)


def _takes_policies(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each policy of a schedule; it gets them as `given`."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(_policies, eval_str=True).parameters
    kept = [one for one in own.parameters.values() if one.name != "given"]
    ours = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in kept]

    @wraps(command)
    def asked(**arguments: Any) -> None:
        said = {name: arguments.pop(name) for name in options}
        command(**arguments, given=_policies(**said))

    signature = own.replace(parameters=[*ours[:-2], *options.values(), *ours[-2:]])
    asked.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
    asked.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return asked


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
    after: Annotated[
        str | None, typer.Option(help="From then on: day in its zone, or ISO 8601.")
    ] = None,
    json: JsonOption = False,
    app: AppOption = None,
) -> None:
    """Show when a schedule fires next, in its own time zone and in UTC.

    Example: pgq schedule next digest -n 5
    """
    from zoneinfo import ZoneInfo

    pgq = ready_app(app)
    fires, timezone = pgq.next_fires(name, count, after=moment(after, "--after"))
    is_paused = any(row["name"] == name and not row["enabled"] for row in pgq.list_schedules())
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
        typer.echo(f"{timezone}{' (paused: it does not fire until it is resumed)' * is_paused}")
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


@app.command("add")
@_takes_policies
def add(
    name: Annotated[str, typer.Argument(help="Its name; a schedule of that name is changed.")],
    cron: Annotated[
        str, typer.Option(help="A cron expression, such as '0 6,14,22 * * *', or '@every 8h'.")
    ],
    task: Annotated[str, typer.Option(help="The task to enqueue for each window.")],
    given: dict[str, Any],
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Add a schedule, or change the one of that name; what is not given becomes the default.

    Example: pgq schedule add digest --cron '0 6,14,22 * * *' --timezone Europe/Bratislava
    --task run-window --payload '{"user_id": 1, "topic_id": 1}'
    """
    pgq = load_app(app)
    stored = pgq.put_schedule(name, cron=cron, task=task, by=operator(), **given)
    pgq.close()
    verb = "added" if stored.is_new else "changed"
    _say(name, verb, {"id": stored.id, "next_run_at": stored.next_run_at}, json)


@app.command("edit")
@_takes_policies
def edit(
    name: NameArgument,
    given: dict[str, Any],
    cron: Annotated[str | None, typer.Option(help="Another cron expression.")] = None,
    task: Annotated[str | None, typer.Option(help="Another task.")] = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help="An option to take back, such as `ends`; may be repeated."),
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Change what is given of a schedule, and leave the rest.

    Example: pgq schedule edit digest --overlap skip --delay 300 --clear ends
    """
    from pgqueue.errors import ConfigError

    named = {name: value for name, value in (("cron", cron), ("task", task)) if value is not None}
    changes = {**given, **named}
    cleared = _cleared(clear or [], changes)
    if not (changes or cleared):
        raise ConfigError("nothing to change: give options such as --cron, or --clear ends")
    pgq = ready_app(app)
    stored = pgq.edit_schedule(name, by=operator(), **changes, **cleared)
    pgq.close()
    _say(name, "changed", {"id": stored.id, "next_run_at": stored.next_run_at}, json)


def _cleared(options: list[str], changes: dict[str, Any]) -> dict[str, None]:
    from pgqueue.errors import ConfigError

    columns = {COLUMNS.get(one, one.replace("-", "_")): one for one in options}
    for column, option in columns.items():
        if option not in OPTIONS:
            raise ConfigError(f"--clear {option} is not valid: {', '.join(OPTIONS)}")
        if column in changes:
            raise ConfigError(f"--{option} and --clear {option} exclude each other")
    return dict.fromkeys(columns)


def _say(name: str, verb: str, facts: dict[str, Any], json: bool) -> None:
    if json:
        print_json({"name": name, **facts})
    else:
        typer.echo(f"schedule {safe(name)} {verb}; next at {shown(facts['next_run_at'])}")


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
