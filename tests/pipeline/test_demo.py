"""The commands of the pipeline, as people run them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pipeline_rig import Rig

from pgqueue.errors import PgQueueError
from pgqueue.pipeline.demo import (
    check_job,
    due_job,
    find_demo_digest,
    prepare,
    prepare_live,
    settle,
)


@pytest.fixture
def command(database: str, tmp_path: Path) -> Any:
    """Runs `pgq` on a fresh database in a folder of its own; a Popen when `wait` is False."""
    environment = {
        **os.environ,
        "PGQUEUE_DATABASE_URL": database,
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pgqueue.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ran(process: subprocess.Popen[str], expected: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == expected, err
    return out, err


def count(database: str, query: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


DIGESTS = "select count(*) from content.digests"


def test_the_demo_shows_a_digest_and_a_second_run_the_same_one(command: Any, database: str) -> None:
    out, err = ran(command("demo"))
    assert "10 stories from 51 new items" in out
    assert "pgq topics add" in out
    assert [line.split()[0] for line in err.splitlines()[1:]] == [
        "ingest",
        "embed",
        "cluster",
        "digest",
    ]
    again, err = ran(command("demo"))
    assert again == out
    assert "0 new windows" in err
    assert count(database, DIGESTS) == 1
    digest = ran(command("inbox", "latest"))[0]
    assert out.startswith(digest)


def test_two_demos_at_once_make_one_digest_and_both_show_it(command: Any, database: str) -> None:
    both = [command("demo", "--json") for _ in range(2)]
    first, second = (json.loads(ran(process)[0]) for process in both)
    assert first == second
    assert len(first["body"]["stories"]) == 10
    assert count(database, DIGESTS) == 1
    assert count(database, "select count(*) from content.items") == 52


def test_a_demo_that_was_interrupted_is_finished_by_the_next_one(
    command: Any, database: str
) -> None:
    process = command("demo")
    assert "schedule ticked" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = ran(process, 130)
    assert out == ""
    assert "10 stories" in ran(command("demo"))[0]
    assert count(database, DIGESTS) == 1


def test_public_feeds_that_cannot_be_reached_end_in_an_empty_digest_with_its_reason(
    command: Any,
) -> None:
    # No server of this name exists (RFC 2606), so the machine's network does not matter.
    ran(command("topics", "add", "Nowhere"))
    ran(command("sources", "add", "https://feeds.invalid/rss", "--topic", "Nowhere"))
    payload = {
        "user_id": 1,
        "topic_id": 1,
        "window_start": "2026-01-01T06:00:00Z",
        "window_end": "2026-01-01T14:00:00Z",
    }
    ran(command("enqueue", "run-window", json.dumps(payload)))
    _, log = ran(command("worker", "--burst", "--no-scheduler"))
    assert "1 sources read, 1 failed, 0 items" in log
    (source,) = json.loads(ran(command("sources", "list", "--json"))[0])
    assert source["health"] == "failing"
    assert source["last_error"]
    assert "No source could be read" in ran(command("inbox", "latest"))[0]


def test_topics_and_sources_are_added_and_listed(command: Any, tmp_path: Path) -> None:
    added = ran(command("topics", "add", "Energy", "--keyword", "wind", "--times", "07:00,19:00"))
    assert "topic 1 added" in added[0]
    (tmp_path / "mine.xml").write_text("<rss version='2.0'><channel/></rss>")
    ran(command("sources", "add", "mine.xml", "--topic", "energy".title(), "--name", "Mine"))
    (topic,) = json.loads(ran(command("topics", "list", "--json"))[0])
    (source,) = json.loads(ran(command("sources", "list", "--json"))[0])
    assert (topic["name"], topic["sources"]) == ("Energy", 1)
    assert (source["name"], source["url"]) == ("Mine", (tmp_path / "mine.xml").as_uri())
    assert "Energy" in ran(command("topics", "list"))[0]
    assert "Mine" in ran(command("sources", "list"))[0]
    assert "no digests yet" in ran(command("inbox"))[0]
    assert json.loads(ran(command("inbox", "--json"))[0]) == []


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("inbox", "latest"), 1, "there is no digest yet"),
        (("inbox", "7"), 1, "digest 7 does not exist"),
        (("inbox", "seven"), 2, "digest 'seven' is not valid"),
        (("topics", "add", "x", "--timezone", "Mars/Base"), 2, "Mars/Base"),
        (("topics", "add", "x", "--times", "noon"), 2, "HH:MM"),
        (("sources", "add", "ftp://x/y", "--topic", "x"), 2, "not valid"),
        (("sources", "add", "https://x.example/", "--topic", "x"), 2, "topic 'x' does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Any, arguments: tuple[str, ...], code: int, line: str
) -> None:
    out, err = ran(command(*arguments), code)
    assert out == ""
    assert line in err
    assert len(err.splitlines()) == 1


def test_a_demo_whose_job_was_lost_makes_a_new_one(rig: Rig) -> None:
    plan = prepare(rig.pgq, rig.folder / "samples")
    assert rig.pgq.tick().jobs == 1
    rig.rows("delete from pgqueue.jobs")
    job_id = due_job(rig.pgq, plan)
    asyncio.run(rig.pgq.worker(burst=True, scheduler=False).run())
    check_job(rig.pgq, plan, job_id)
    assert find_demo_digest(rig.pgq, plan) is not None


def test_a_demo_that_failed_says_why(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(rig.pgq, rig.folder / "samples")
    rig.pgq.tick()
    rig.rows("update pgqueue.jobs set max_attempts = 1")
    job_id = due_job(rig.pgq, plan)
    monkeypatch.setattr("pgqueue.pipeline.clustering.cluster", lambda *_, **__: 1 / 0)
    asyncio.run(rig.pgq.worker(burst=True, scheduler=False).run())
    with pytest.raises(PgQueueError, match=f"job {job_id} has failed: ZeroDivisionError"):
        check_job(rig.pgq, plan, job_id)


def test_the_sample_topic_stops_after_the_demo_and_the_live_one_goes_on(rig: Rig) -> None:
    for plan in (prepare(rig.pgq, rig.folder / "samples"), prepare_live(rig.pgq)):
        settle(rig.pgq, plan)
    schedules = {one["payload"]["topic_id"]: one for one in rig.pgq.list_schedules()}
    assert schedules.pop(rig.topic_id)["enabled"] is True
    sample, live = (schedules[topic_id] for topic_id in sorted(schedules))
    assert (sample["enabled"], live["enabled"], live["delay"]) == (False, True, 600)
