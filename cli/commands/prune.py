"""pgq prune."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import operator, plain, span_of

if TYPE_CHECKING:
    from pgqueue.engine.keeping import Change, Policy

DIGITS = 18
WHO = {
    "completed": "completed jobs",
    "failed": "failed and cancelled jobs",
    "windows": "windows of schedules",
}


def prune(
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what is kept and what would be dropped; change nothing."
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=TIME",
            help="From now on keep completed=7d, failed=30d (cancelled ones, too), windows=400d "
            "(of schedules), or =forever.",
        ),
    ] = None,
    keep_count: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=N",
            help="From now on let old days go while younger ones hold N jobs; =any for any number.",
        ),
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Drop the days of finished jobs that are too old, and make days ahead; or set what is kept.

    Workers do it every 10 minutes where their role owns the tables; elsewhere the owner runs this
    every day. Unless set otherwise, completed jobs are kept for 7 days, failed and cancelled ones
    for 30, windows of schedules for 400; the workers let the windows go. With --keep or
    --keep-count nothing is dropped yet: the next pass does.

    Example: pgq prune --dry-run --keep completed=3d        pgq prune --keep completed=3d
    """
    changes = _changes(keep or [], keep_count or [])
    pgq = ready_app(app)
    became: dict[str, Iterable[str]] = {}
    if dry_run:
        became = {"would go": pgq.plan_prune(*changes)}
    elif changes:
        for change in changes:
            pgq.set_retention(
                change.state_group, keep=change.keep, keep_count=change.keep_count, by=operator()
            )
    else:
        pruned = pgq.prune(by=operator())
        became = {"dropped": pruned.dropped, "postponed": pruned.postponed}
    policy = pgq.list_retention()
    pgq.close()
    if json:
        print_json(_document(policy, became))
    else:
        _tell(policy if dry_run or changes else [], became)


def _changes(keeps: list[str], counts: list[str]) -> list[Change]:
    from pgqueue.engine.keeping import Change

    changes: dict[str, dict[str, Any]] = {}
    for text in keeps:
        group, value = _parted("--keep", text, "completed=7d")
        changes.setdefault(group, {})["keep"] = _time("--keep", text, value)
    for text in counts:
        group, value = _parted("--keep-count", text, "completed=1000000")
        changes.setdefault(group, {})["keep_count"] = _count("--keep-count", text, value)
    return [Change(group, **given) for group, given in changes.items()]


def _parted(option: str, text: str, example: str) -> tuple[str, str]:
    from pgqueue.errors import ConfigError

    group, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"{option} {text!r} is not valid: say which and what, {example}")
    return group, value


def _time(option: str, text: str, value: str) -> timedelta | None:
    from pgqueue.errors import ConfigError

    if value == "forever":
        return None
    if (span := span_of(value)) is None:
        raise ConfigError(f"{option} {text!r} is not valid: a time such as 12h, 7d, or forever")
    return span


def _count(option: str, text: str, value: str) -> int | None:
    from pgqueue.errors import ConfigError

    if value == "any":
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= DIGITS):
        raise ConfigError(f"{option} {text!r} is not valid: a whole number, or any")
    return int(value)


def _document(policy: list[Policy], became: dict[str, Iterable[str]]) -> dict[str, Any]:
    kept = [
        {"state_group": one.state_group, "keep": one.keep, "keep_count": one.keep_count}
        for one in policy
    ]
    partitions = [
        {"partition_name": name, "became": what} for what in became for name in became[what]
    ]
    return {"retention": plain(kept), "partitions": partitions}


def _tell(policy: list[Policy], became: dict[str, Iterable[str]]) -> None:
    for one in policy:
        kept = "for ever" if one.keep is None else f"for {_days(one.keep)}"
        count = "" if one.keep_count is None else f", or until younger days hold {one.keep_count:,}"
        typer.echo(f"kept: {WHO[one.state_group]} {kept}{count}")
    if became and not any(became.values()):
        typer.echo("nothing is old enough to go")
    for what, names in became.items():
        for name in names:
            typer.echo(f"{what}: {name}")
    if became.get("postponed"):
        typer.echo("postponed days wait for a reader to end its transaction: run pgq prune again")


def _days(keep: timedelta) -> str:
    days = keep / timedelta(days=1)
    return f"{days:g} days" if days >= 1 else f"{days * 24:g} hours"
