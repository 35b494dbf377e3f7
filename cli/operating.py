"""What operators' commands share: who acts, times, filters, and text that is safe to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import print_table, shown

if TYPE_CHECKING:
    from pgqueue import JobFilter, Operator

LARGEST_ID = 2**63 - 1
MANY = 20
"""Ids that one line names; the rest is a number."""

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_SPAN_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Control characters (a terminal obeys them), and marks that turn the direction of writing.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

IdArgument = Annotated[int, typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="A job's id.")]
IdsArgument = Annotated[
    list[int], typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="Ids of jobs.")
]
OptionalIdsArgument = Annotated[
    list[int] | None,
    typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="Ids of jobs."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many jobs.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say how many and show some; change nothing.")
]
StateOption = Annotated[
    list[str] | None,
    typer.Option(
        help="queued, blocked, waiting, running, completed, failed or cancelled; may be repeated."
    ),
]
StatusOption = Annotated[
    str | None, typer.Option(help="As --state, and: scheduled, retrying (not due yet).")
]
TaskOption = Annotated[str | None, typer.Option(help="Jobs of this task.")]
QueueOption = Annotated[str | None, typer.Option(help="Jobs of this queue.")]
TenantOption = Annotated[str | None, typer.Option(help="Jobs of this tenant.")]
TagOption = Annotated[str | None, typer.Option(help="Jobs with this tag.")]
ReasonOption = Annotated[
    str | None, typer.Option(help="The last error's reason: exception, timeout, crashed, …")
]
WorkflowOption = Annotated[
    int | None,
    typer.Option("--workflow", min=1, max=LARGEST_ID, help="Jobs of the workflow with this id."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(help="Ended (live ones: created) since then: 24h, 7d, or ISO 8601 with zone."),
]
UntilOption = Annotated[str | None, typer.Option(help="Before then; as --since.")]


def operator() -> Operator:
    """This machine's user, at the command line."""
    from pgqueue.engine.operate import this_user

    return this_user("cli")


def job_filter(
    *, state: Sequence[str] | None, since: str | None, until: str | None = None, **rest: Any
) -> JobFilter:
    """The filter that the options ask for; raises ConfigError."""
    from pgqueue import JobFilter

    return JobFilter(
        states=tuple(state or ()),
        since=_instant(since, "--since"),
        until=_instant(until, "--until"),
        **rest,
    )


def span_of(text: str) -> timedelta | None:
    """A time such as 90s, 24h or 7d; None for what is none."""
    if span := _SPAN.fullmatch(text):
        with suppress(OverflowError):
            return timedelta(**{_SPAN_UNITS[span[2]]: int(span[1])})
    return None


def _instant(text: str | None, option: str) -> datetime | None:
    from pgqueue.errors import ConfigError

    if text is None:
        return None
    if (span := span_of(text)) is not None:
        with suppress(OverflowError):
            return datetime.now(UTC) - span
    with suppress(ValueError):
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant
    raise ConfigError(
        f"{option} {text!r} is not a time: use a span such as 24h or 7d, "
        "or ISO 8601 with zone, 2030-01-31T08:00:00+01:00"
    )


def moment(text: str | None, option: str) -> datetime | date | None:
    """A time given on the command line: a span ago, a day, or ISO 8601 with zone."""
    if text is not None:
        with suppress(ValueError):
            return date.fromisoformat(text)
    return _instant(text, option)


def safe(text: str) -> str:
    """Text from jobs on one line, without what a terminal would obey."""
    return _UNSAFE.sub("", " ".join(text.splitlines()))


def safe_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
    """`print_table` for values that came from outside."""
    cleaned = [{name: safe(shown(_brief(row[name]))) for name in columns} for row in rows]
    print_table(cleaned, columns, empty)


def _brief(value: Any) -> Any:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.1f} s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(one) for one in value) or None if isinstance(value, list) else value


def plain(document: Any) -> Any:
    """The document with spans in seconds, as JSON has no word for them."""
    if isinstance(document, timedelta):
        return document.total_seconds()
    if isinstance(document, Mapping):
        return {name: plain(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [plain(value) for value in document]
    return document


def say_ids(what: str, ids: Sequence[int]) -> None:
    """One line about jobs, if there are any."""
    if not ids:
        return
    named = ", ".join(str(job_id) for job_id in ids[:MANY])
    more = f" and {len(ids) - MANY} more" if len(ids) > MANY else ""
    typer.echo(f"{what} ({len(ids)}): {named}{more}")
