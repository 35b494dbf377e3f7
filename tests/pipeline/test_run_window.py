"""run-window as a task: scheduled once, run by a worker, read by a person."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from pipeline_rig import END, START, Rig, rss

from pgqueue.errors import PayloadInvalid
from pgqueue.pipeline.inbox import find_digest, list_digests
from pgqueue.pipeline.samples import SAMPLE_FEEDS, write_samples
from pgqueue.schedule.cron import Cron


def work(rig: Rig) -> None:
    asyncio.run(rig.pgq.worker(burst=True, scheduler=False).run())


def asked(rig: Rig, **changes: object) -> dict[str, object]:
    return {
        "user_id": 1,
        "topic_id": rig.topic_id,
        "window_start": START.isoformat(),
        "window_end": END.isoformat(),
        **changes,
    }


def test_a_tick_and_a_worker_turn_the_last_closed_window_into_a_digest(rig: Rig) -> None:
    now = rig.one("select pgqueue.clock()")
    cron = Cron("0 6,14,22 * * *")
    end = cron.previous(now)
    start = cron.previous(end)
    paths = write_samples(rig.folder / "samples", window_start=start, window_end=end)
    for feed, path in zip(SAMPLE_FEEDS, paths, strict=True):
        rig.source(path.as_uri(), feed.name)
    rig.rows("update pgqueue.schedules set next_run_at = %s, delay = 0", [end])

    assert (rig.pgq.tick().jobs, rig.pgq.tick().jobs) == (1, 0)
    work(rig)

    digest = find_digest(rig.pgq, topic="Topic")
    assert digest is not None
    assert (digest["window_start"], digest["window_end"], digest["mode"]) == (start, end, "window")
    assert len(digest["body"]["stories"]) == 10
    assert digest["title"] in digest["text"]
    (listed,) = list_digests(rig.pgq)
    assert (listed["stories"], listed["reason"]) == (10, None)


def test_the_result_of_the_job_is_the_summary_of_the_run(rig: Rig) -> None:
    rig.feed("a.rss", rss([]))
    job = rig.pgq.enqueue("run-window", asked(rig))
    work(rig)
    result = rig.one("select result from pgqueue.finished_jobs where id = %s", [job.id])
    assert set(result["counts"]) == {"ingest", "embed", "cluster", "digest"}
    assert result["milliseconds"].keys() == result["counts"].keys()


def test_a_window_enqueued_three_times_is_run_once(rig: Rig) -> None:
    rig.feed("a.rss", rss([]))
    jobs = [rig.pgq.enqueue("run-window", asked(rig)) for _ in range(3)]
    work(rig)
    assert {rig.pgq.get_job(job.id).state for job in jobs} == {"completed"}
    assert rig.one("select count(*) from content.digests") == 1


def test_the_older_spelling_of_the_task_is_understood(rig: Rig) -> None:
    assert rig.pgq.enqueue("run_window", asked(rig)).task == "run-window"


@pytest.mark.parametrize(
    "changes",
    [{"window_end": "2026-01-01T00:00:00"}, {"topic_id": "x"}, {"mode": "daily"}, {"more": 1}],
)
def test_a_payload_that_does_not_fit_is_refused_when_enqueued(
    rig: Rig, changes: dict[str, object]
) -> None:
    with pytest.raises(PayloadInvalid, match=next(iter(changes))):
        rig.pgq.enqueue("run-window", asked(rig, **changes))
    assert rig.one("select count(*) from pgqueue.jobs") == 0


@pytest.mark.parametrize(
    "changes", [{"topic_id": 77}, {"user_id": 2}, {"window_end": "2020-01-01T00:00:00Z"}]
)
def test_a_window_that_cannot_be_run_fails_at_once_and_writes_nothing(
    rig: Rig, changes: dict[str, object]
) -> None:
    job = rig.pgq.enqueue("run-window", asked(rig, **changes))
    work(rig)
    finished = rig.pgq.get_job(job.id)
    assert (finished.state, finished.attempt) == ("failed", 1)
    assert rig.one("select count(*) from content.windows") == 0


def test_the_built_in_app_loads_nothing_heavy() -> None:
    program = (
        "import sys, pgqueue.pipeline.app, pgqueue.pipeline.topics, pgqueue.pipeline.inbox\n"
        "heavy = 'numpy sqlalchemy alembic feedparser lxml httpx2 trafilatura py3langid'\n"
        "print([name for name in heavy.split() if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_without_the_extra_there_is_no_task_to_claim_and_it_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['feedparser'] = None\n"
        "from pgqueue.pipeline.app import pgq\n"
        "from pgqueue.pipeline.extra import needs_pipeline\n"
        "try:\n"
        "    with needs_pipeline('the task run-window'):\n"
        "        from pgqueue.pipeline import run_window\n"
        "except Exception as error:\n"
        "    print(pgq.tasks.names(), type(error).__name__, error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == (
        "[] ExtraMissing the task run-window needs an extra: pip install 'pgqueue[pipeline]'"
    )
