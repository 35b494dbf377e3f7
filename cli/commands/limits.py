"""pgq limits: list, set, reset, check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import operator, plain, safe, safe_table, span_of

app = typer.Typer(
    help="Limits: who holds them and who waits; set them for a while; check that they hold.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SHOWN = (
    "name", "running", "used", "free", "starts", "per", "started", "waiting", "held_by", "until",
)  # fmt: skip

NameArgument = Annotated[
    str, typer.Argument(help="The limit's name, such as email, tenant:acme or queue:mail.")
]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many limits.")] = 100,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List limits that are set, held or waited for, the longest lines first.

    held_by is the job that those in an order wait for: `pgq jobs why ID` says for what it waits.

    Example: pgq limits list
    """
    pgq = ready_app(app)
    rows = pgq.limits(limit=limit)
    pgq.close()
    if json:
        print_json(plain(rows))
    else:
        safe_table(rows, SHOWN, "no limits yet: declare some with @pgq.task(limits=[…])")


@app.command("set")
def set_(
    name: NameArgument,
    running: Annotated[int | None, typer.Option(min=0, help="So many at once.")] = None,
    starts: Annotated[int | None, typer.Option(min=1, help="So many in any --per.")] = None,
    per: Annotated[
        str | None, typer.Option(help="Seconds, or 30s, 10m, 1h, 1d; without: as declared.")
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", help="For so long: 30s, 10m, 1h, 7d; without: for good.")
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Let other figures hold than the code declares; queue:NAME limits a whole queue.

    Example: pgq limits set tenant:acme --running 10 --for 1h
    """
    from pgqueue.errors import ConfigError

    span = None if lasting is None else span_of(lasting)
    if lasting is not None and span is None:
        raise ConfigError(f"--for {lasting!r} is not a time: use one such as 30s, 10m, 1h or 7d")
    pgq = ready_app(app)
    is_declared = pgq.set_limit(
        name, running=running, starts=starts, per=_period(per), lasting=span, by=operator()
    )
    rows = pgq.limits(name)
    pgq.close()
    if not is_declared and not any(row["used"] or row["waiting"] for row in rows):
        note = f"note: no task has declared limit {safe(name)} yet, and no job waits for it: "
        typer.echo(note + "`pgq limits list` shows those in use", err=True)
    if json:
        print_json(plain(rows))
    else:
        safe_table(rows, SHOWN, f"limit {safe(name)} is set")


def _period(text: str | None) -> float | None:
    from pgqueue.errors import ConfigError

    if text is None:
        return None
    if (span := span_of(text)) is not None:
        return span.total_seconds()
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--per {text!r} is not a time: use one such as 90, 30s, 10m, 1h or 1d"
        ) from None


@app.command("reset")
def reset(name: NameArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Take back what was set: what the code declares holds again.

    Example: pgq limits reset tenant:acme
    """
    pgq = ready_app(app)
    changed = pgq.reset_limit(name, by=operator())
    pgq.close()
    if json:
        print_json({"name": name, "changed": changed})
    else:
        typer.echo(f"limit {safe(name)} {'is as declared' if changed else 'was not set'}")


@app.command("check")
def check(app: AppOption = None, json: JsonOption = False) -> None:
    """Prove from the rows that no limit is exceeded; exit code 1 if one is.

    Example: pgq limits check
    """
    pgq = ready_app(app)
    exceeded = pgq.check_limits()
    pgq.close()
    if json:
        print_json([asdict(one) for one in exceeded])
    elif not exceeded:
        typer.echo("no limit is exceeded")
    for one in [] if json else exceeded:
        what = f"starts in {one.per:g} s" if one.per else f"jobs at once: {one.job_ids}"
        typer.echo(f"{safe(one.name)}: {one.found} of {one.allowed} {what}")
    if exceeded:
        raise typer.Exit(1)
