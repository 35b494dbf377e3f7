"""What a workflow may look like, and what is refused before anything is in the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pgqueue import (
    ConfigError,
    PgQueue,
    TooManyJobs,
    Workflow,
    WorkflowInvalid,
    WorkflowNotFound,
)
from proving import rows, value
from workflows.flows import job, parents_of

Build = Callable[[Workflow], Any]


def _fan(wf: Workflow) -> None:
    first = wf.group("first", [job()] * 1001)
    wf.group("second", [job()] * 1000, after=first)


def _other(wf: Workflow) -> None:
    wf.add("a", job())
    foreign = Workflow("other", wf._sender).add("a", job())
    wf.add("b", job(), after=foreign)


def _ring(wf: Workflow) -> None:
    wf.add("start", job())
    wf.add("a", job(), after=["start", "c"])
    wf.add("b", job(), after="a")
    wf.add("c", job(), after="b")


def _twice(wf: Workflow) -> None:
    wf.add("a", job())
    wf.add("a", job())


def _group_twice(wf: Workflow) -> None:
    wf.add("a", job())
    wf.group("a", [job()])


def _member_twice(wf: Workflow) -> None:
    wf.add("a[0]", job())
    wf.group("a", [job()])


def _callback_twice(wf: Workflow) -> None:
    wf.add("a.callback", job())
    wf.group("a", [job()], callback=job())


MALFORMED: list[tuple[str, Build, str]] = [
    ("no nodes", lambda wf: None, "workflow 'wf' has no nodes: add one"),
    ("a name twice", _twice, "two nodes are named 'a': each needs a name of its own"),
    (
        "a group named like a node", _group_twice,
        "two nodes are named 'a': each needs a name of its own",
    ),
    (
        "a member named like a node", _member_twice,
        "two nodes are named 'a[0]': each needs a name of its own",
    ),
    (
        "a callback named like a node", _callback_twice,
        "two nodes are named 'a.callback': each needs a name of its own",
    ),
    (
        "an unknown name", lambda wf: wf.add("a", job(), after="b"),
        "node 'a' comes after 'b', which does not exist: the nodes are 'a'",
    ),
    ("itself", lambda wf: wf.add("a", job(), after="a"), "node 'a' comes after itself"),
    ("a circle", _ring, "the workflow goes in a circle: a -> b -> c -> a"),
    (
        "another workflow's node", _other,
        "node 'b' comes after 'a' of another workflow: the nodes here are 'a'",
    ),
    ("an empty group", lambda wf: wf.group("g", []), "group 'g' is empty: give it one job or more"),
    ("an empty chain", lambda wf: wf.chain("c", []), "chain 'c' is empty: give it one job or more"),
    (
        "an empty name", lambda wf: wf.add("", job()),
        ("node name '' is not valid: text of 1 to 200 bytes, without NUL or lone "
        "surrogates"),
    ),
    (
        "a long name", lambda wf: wf.add("n" * 201, job()),
        "node name has 201 bytes, and 200 is the most",
    ),
    (
        "a name with NUL", lambda wf: wf.add("a\0", job()),
        ("node name 'a\\x00' is not valid: text of 1 to 200 bytes, without NUL or lone "
        "surrogates"),
    ),
    ("a number as a name", lambda wf: wf.add(7, job()), "node name 7 is not valid: use text"),
    (
        "a number as a group's name", lambda wf: wf.group(7, [job()]),
        "group name 7 is not valid: use text",
    ),
    (
        "no job", lambda wf: wf.add("a", {"n": 1}),
        "node 'a': {'n': 1} is no job: use task.payload(…)",
    ),
    (
        "no job in a group", lambda wf: wf.group("g", [None]),
        "node 'g[0]': None is no job: use task.payload(…)",
    ),
    (
        "one job as a group", lambda wf: wf.group("g", job()),
        "group 'g' takes a list of jobs: [task.payload(…), …]",
    ),
    (
        "a mapping as a chain", lambda wf: wf.chain("c", {"a": job()}),
        "chain 'c' takes a list of jobs: [task.payload(…), …]",
    ),
    (
        "a unique key", lambda wf: wf.add("a", replace(job(), unique_key="k")),
        ("node 'a' has a unique key: the job that holds it may belong to nobody here; "
        "enqueue from inside the node instead"),
    ),
    (
        "a policy nobody knows", lambda wf: wf.add("a", job(), parent_failed="stop"),
        "node 'a': parent_failed 'stop' is not valid: cancel, ignore, fail",
    ),
    (
        "a policy of the wrong type", lambda wf: wf.add("a", job(), parent_cancelled=None),
        "node 'a': parent_cancelled None is not valid: cancel, ignore, fail",
    ),
    (
        "an option nobody knows", lambda wf: wf.add("a", job(), on_failure="cancel"),
        ("node 'a': unknown option 'on_failure': the options are after, before, "
        "parent_failed, parent_cancelled"),
    ),
    (
        "a number in after", lambda wf: wf.add("a", job(), after=[3]),
        "node 'a' comes after 3: use names, or what add() and group() return",
    ),
    (
        "a mapping as after", lambda wf: wf.add("a", job(), after={"b": 1}),
        "node 'a' comes after {'b': 1}: use names, or what add() and group() return",
    ),
    (
        "None as after", lambda wf: wf.add("a", job(), after=None),
        "node 'a' comes after None: use names, or what add() and group() return",
    ),
    (
        "before in a new workflow", lambda wf: wf.add("a", job(), before="b"),
        ("node 'a': before= is for a workflow that is under way: say that 'b' comes after "
        "'a'"),
    ),
    (
        "too many edges", _fan,
        ("the workflow has 1,001,000 edges, and 1,000,000 is the most: let a group come "
        "after the callback of the one before, not after all of its members"),
    ),
]  # fmt: skip


def _built(wf: Workflow, build: Build) -> None:
    build(wf)
    wf.enqueue()


@pytest.mark.parametrize(
    ("build", "message"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_a_malformed_workflow_is_refused_with_its_error(
    nowhere: PgQueue, build: Build, message: str
) -> None:
    """The app leads nowhere: it is refused before anything is sent."""
    wf = nowhere.workflow("wf")
    with pytest.raises(WorkflowInvalid) as refused:
        _built(wf, build)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda pgq: pgq.workflow(""),
            ("workflow name '' is not valid: text of 1 to 200 bytes, without NUL or lone "
            "surrogates"),
        ),
        (lambda pgq: pgq.workflow_of(0), "workflow id 0 is not valid: a whole number from 1"),
        (lambda pgq: pgq.workflow_of("7"), "workflow id '7' is not valid: a whole number from 1"),
        (
            lambda pgq: pgq.show_workflow(2.0),
            "workflow id 2.0 is not valid: a whole number from 1",
        ),
        (
            lambda pgq: pgq.cancel_workflow(2**63),
            "workflow id 9223372036854775808 is not valid: a whole number from 1",
        ),
        (
            lambda pgq: pgq.list_workflows(state="done"),
            "state 'done' is not valid: running, completed, failed, cancelled",
        ),
        (lambda pgq: pgq.list_workflows(limit=0), "limit 0 is not valid: 1 or more"),
        (lambda pgq: pgq.rerun_workflow(1), "say which nodes are to run again"),
        (
            lambda pgq: pgq.cancel_workflow(1, by="ada"),
            "by='ada' is not valid: use Operator('ada')",
        ),
    ],
)  # fmt: skip
def test_a_bad_call_is_refused_with_its_error(
    nowhere: PgQueue, call: Callable[[PgQueue], Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        call(nowhere)
    assert str(refused.value) == message


def test_a_task_has_to_be_called_with_what_fits(pgq: PgQueue) -> None:
    @pgq.task
    def resize(n: int) -> None: ...

    with pytest.raises(ConfigError, match="is no job: use task"):
        pgq.workflow("wf").add("a", resize)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task 'resize' is not valid: n: Field required"):
        resize.payload()
    with pytest.raises(ConfigError, match="a connection is for enqueue"):
        resize.using(connection=object()).payload(n=1)


def test_a_workflow_is_refused_by_a_queue_that_it_would_overfill(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("wf")
    wf.group("g", [job() for _ in range(4)], after=wf.add("first", job()))
    pgq.set_max_queued("default", 4)
    message = "with this workflow more than 4 jobs of queue 'default' would wait, the most it takes"
    with pytest.raises(TooManyJobs, match=message) as caught:
        wf.enqueue()
    assert caught.value.limit == 4
    pgq.set_max_queued("default", 5)
    wf.enqueue()
    assert value(database, "select count(*) from pgqueue.jobs") == 5


def test_a_job_that_is_enqueued_already_is_no_node(pgq: PgQueue) -> None:
    @pgq.task
    def noop() -> None: ...

    made = noop.enqueue()
    with pytest.raises(WorkflowInvalid) as refused:
        pgq.workflow("wf").add("a", made)  # type: ignore[arg-type]  # the point
    assert str(refused.value) == (
        f"node 'a': job {made.id} is in its queue already: use task.payload(…), which enqueues "
        "nothing"
    )
    with pytest.raises(WorkflowNotFound, match=f"job {made.id} belongs to no workflow"):
        pgq.workflow_of(made)


def test_a_refused_workflow_leaves_nothing_behind(pgq: PgQueue, database: str) -> None:
    pgq.set_quota("acme", 1)
    wf = pgq.workflow("wf")
    wf.group("g", [replace(job(), tenant="acme") for _ in range(2)])
    with pytest.raises(
        TooManyJobs, match="more than 1 jobs of tenant 'acme' would wait, its quota"
    ) as caught:
        wf.enqueue()
    assert caught.value.limit == 1
    assert (
        rows(
            database,
            "select from pgqueue.jobs union all select from pgqueue.workflows "
            "union all select from pgqueue.workflow_nodes",
        )
        == []
    )


def test_names_may_be_used_before_their_nodes_are_added(pgq: PgQueue) -> None:
    wf = pgq.workflow("wf")
    wf.add("last", job(), after=["first", "second"])
    wf.add("second", job(), after="first")
    wf.add("first", job())
    made = wf.enqueue()
    assert list(made.jobs) == ["first", "second", "last"]
    assert sorted(made.jobs.values()) == list(made.jobs.values())


def test_chains_groups_and_callbacks_are_nodes_like_others(pgq: PgQueue) -> None:
    wf = pgq.workflow("wf")
    start = wf.add("start", job())
    steps = wf.chain("step", [job(), job()], after=start)
    parts = wf.group("part", [job(), job()], after=steps, callback=job())
    wf.add("after-all", job(), after=parts)
    wf.add("after-callback", job(), after=parts.callback)
    wf.add("named", job(), after=["part", "start"])
    made = wf.enqueue()
    shown = pgq.show_workflow(made.id)
    assert parents_of(shown["graph"]) == {
        "start": [],
        "step[0]": ["start"],
        "step[1]": ["step[0]"],
        "part[0]": ["step[1]"],
        "part[1]": ["step[1]"],
        "part.callback": ["part[0]", "part[1]"],
        "after-all": ["part[0]", "part[1]"],
        "named": ["start", "part[0]", "part[1]"],
        "after-callback": ["part.callback"],
    }
    assert (shown["state"], shown["nodes"], shown["waiting"]) == ("running", 9, 8)


def test_a_builder_can_be_enqueued_twice(pgq: PgQueue) -> None:
    wf = pgq.workflow("wf")
    wf.add("a", job())
    first, second = wf.enqueue(), wf.enqueue()
    assert first.id != second.id
    assert first.jobs != second.jobs


def test_a_group_that_is_refused_is_not_half_there(pgq: PgQueue) -> None:
    wf = pgq.workflow("wf")
    wf.add("part.callback", job())
    wf.add("step[1]", job())
    with pytest.raises(WorkflowInvalid, match=r"two nodes are named 'part\.callback'"):
        wf.group("part", [job(), job()], callback=job())
    with pytest.raises(WorkflowInvalid, match=r"two nodes are named 'step\[1\]'"):
        wf.chain("step", [job(), job()])
    assert (list(wf.nodes), list(wf.groups)) == (["part.callback", "step[1]"], [])


@pytest.mark.parametrize("name", ["", "\x00", "\udc80", 5, "x" * 201])
def test_a_list_of_workflows_of_a_name_that_none_can_have_is_refused(
    pgq: PgQueue, name: Any
) -> None:
    with pytest.raises(WorkflowInvalid, match=r"workflow name .* (is not valid|is the most)"):
        pgq.list_workflows(name=name)
