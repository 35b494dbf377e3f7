"""pgq workflows: list, show, cancel, retry, rerun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app, shown
from ..operating import LARGEST_ID, operator, plain, safe, safe_table, say_ids

if TYPE_CHECKING:
    from pgqueue.engine.retry_jobs import Retried

app = typer.Typer(
    help="Workflows: jobs that wait for other jobs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LONGEST = 200
"""Characters of an error that are shown."""

SHOWN = (
    "id", "name", "state", "nodes", "waiting", "queued", "running", "completed", "failed",
    "cancelled", "created_at", "finished_at",
)  # fmt: skip

IdArgument = Annotated[
    int, typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="A workflow's id.")
]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Option(help="Of this name.")] = None,
    state: Annotated[
        str | None, typer.Option(help="running, completed, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Workflows on a page.")] = 50,
    before: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_ID, help="The next page: the last id of this one."),
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List workflows, newest first, with how many of their nodes are where.

    Example: pgq workflows list --state running
    """
    pgq = ready_app(app)
    rows = pgq.list_workflows(name=name, state=state, limit=limit, before=before)
    pgq.close()
    if json:
        print_json(plain(rows))
        return
    safe_table(rows, SHOWN, "no such workflows")
    if len(rows) == limit:
        typer.echo(f"the next page: --before {rows[-1]['id']}")


@app.command("show")
def show(
    workflow_id: IdArgument,
    all_nodes: Annotated[
        bool, typer.Option("--all", help="Each node on a line, also of large groups.")
    ] = False,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Draw a workflow: each node below the last one it comes after, large groups as one line.

    Example: pgq workflows show 7
    """
    from ..drawing import lines

    pgq = ready_app(app)
    workflow = pgq.show_workflow(workflow_id)
    pgq.close()
    if json:
        print_json(plain(workflow))
        return
    ended = workflow["completed"] + workflow["failed"] + workflow["cancelled"]
    typer.echo(
        f"workflow {workflow['id']} {safe(workflow['name'])}: {workflow['state']}, "
        f"{ended:,} of {workflow['nodes']:,} nodes have ended"
    )
    for line in lines(workflow["graph"], folded=not all_nodes):
        typer.echo(line)
    for error in workflow["errors"]:
        what = ": ".join(part for part in (error["type"], error["message"]) if part)
        again = f", next try {shown(error['next_try'])}" if error["next_try"] else ""
        typer.echo(safe(f"{error['name']} (job {error['job_id']}): {what[:LONGEST]}{again}"))


@app.command("cancel")
def cancel(workflow_id: IdArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Cancel all jobs of a workflow that have not ended; running ones within a second.

    Example: pgq workflows cancel 7
    """
    pgq = ready_app(app)
    cancelled = pgq.cancel_workflow(workflow_id, by=operator())
    pgq.close()
    if json:
        print_json({"cancelled": list(cancelled.ended), "marked": list(cancelled.marked)})
        return
    say_ids("cancelled", sorted(cancelled.ended))
    say_ids("asked to stop", sorted(cancelled.marked))


@app.command("retry")
def retry(workflow_id: IdArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Run again what failed or was cancelled, in order; completed nodes stay as they are.

    Example: pgq workflows retry 7
    """
    pgq = ready_app(app)
    retried = pgq.retry_workflow(workflow_id, by=operator())
    pgq.close()
    _say_retried(retried, json)


@app.command("rerun")
def rerun(
    workflow_id: IdArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of nodes or groups.")],
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run nodes again, completed or not, and all that comes after them.

    Example: pgq workflows rerun 7 report
    """
    pgq = ready_app(app)
    retried = pgq.rerun_workflow(workflow_id, *names, by=operator())
    pgq.close()
    _say_retried(retried, json)


def _say_retried(retried: Retried, json: bool) -> None:
    if json:
        refused = {str(job_id): why for job_id, why in retried.refused.items()}
        print_json(
            {
                "retried": list(retried.retried),
                "refused": refused,
                "missing": list(retried.missing),
            }
        )
        return
    if not (retried.retried or retried.refused or retried.missing):
        typer.echo("nothing to run again: no node has failed or was cancelled")
    say_ids("run again", retried.retried)
    for job_id, why in retried.refused.items():
        typer.echo(f"refused: job {job_id}: {why}")
    say_ids("gone, as retention or somebody deleted them", retried.missing)
