"""pgq doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import safe

EXIT_FAILED = 1
MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


def doctor(app: AppOption = None, json: JsonOption = False) -> None:
    """Look for what is wrong: workers, partitions, snapshots, tasks, limits, chores, schedules.

    Exit code 1 if something is an error.

    Example: pgq doctor
    """
    pgq = ready_app(app)
    findings = pgq.examine()
    pgq.close()
    if json:
        print_json(
            [
                {
                    "check": one.check,
                    "level": str(one.level),
                    "message": one.message,
                    "advice": one.advice,
                }
                for one in findings
            ]
        )
    else:
        for one in findings:
            advice = f"\n         {one.advice}" if one.advice else ""
            typer.echo(f"{MARKS[one.level]}  {one.check}: {safe(one.message)}{advice}")
    if any(one.level == "error" for one in findings):
        raise typer.Exit(EXIT_FAILED)
