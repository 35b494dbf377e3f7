"""A worker killed inside a stage's transaction, or just after its commit: the next one goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_rig import END, START, Rig, recorded

from pgqueue import PgQueue
from pgqueue.pipeline.events import StageCommitted, StageStarted
from pgqueue.pipeline.samples import SAMPLE_FEEDS, write_samples
from pgqueue.pipeline.stage import STAGES
from pgqueue.pipeline.tasks import add_tasks

HERE = Path(__file__).parent
POINTS = [f"{kind}:{stage}" for stage in STAGES for kind in ("written", "committed")]
# So that the dead worker's job is taken back soon.
QUICK = {"PGQUEUE_HEARTBEAT_INTERVAL": "0.2", "PGQUEUE_HEARTBEAT_TIMEOUT": "1.5"}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_window_is_finished_by_the_next_worker_from_where_it_was(
    rig: Rig, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    paths = write_samples(tmp_path / "samples", window_start=START, window_end=END)
    for feed, path in zip(SAMPLE_FEEDS, paths, strict=True):
        rig.source(path.as_uri(), feed.name)
    job = rig.pgq.enqueue("run-window", window(rig))

    before = killed_worker(database, tmp_path / "events", point)
    assert before[-1] == point
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    after = finishing_worker(database, job.id)

    kind, _, stage = point.partition(":")
    done = STAGES[: STAGES.index(stage) + (kind == "committed")]
    assert [event for event in before if event.startswith("committed")] == [
        f"committed:{one}" for one in done
    ]
    left = [one for one in STAGES if one not in done]
    assert after == [f"{kind}:{one}" for one in left for kind in ("started", "committed")]
    assert rig.pgq.get_job(job.id).state == "completed"
    assert_whole(rig)


def window(rig: Rig) -> dict[str, object]:
    return {
        "user_id": 1,
        "topic_id": rig.topic_id,
        "window_start": START.isoformat(),
        "window_end": END.isoformat(),
        "mode": "window",
    }


def assert_whole(rig: Rig) -> None:
    """Exactly what one undisturbed run leaves."""
    assert rig.one("select count(*) from content.digests") == 1
    assert rig.one("select count(*) from content.items where window_id is not null") == 52
    assert rig.one("select count(*) from content.embeddings") == 52
    assert rig.one("select count(*) from content.story_items") == 52
    assert rig.one("select count(*) from content.stories") == 17
    assert len(rig.digest()["stories"]) == 10
    (row,) = rig.rows("select stage, counts from content.windows")
    assert row["stage"] == "digest"
    assert row["counts"]["cluster"]["new_stories"] == 17


def killed_worker(database: str, events: Path, point: str) -> list[str]:
    """Run a worker until it kills itself; returns the events it wrote down."""
    process = subprocess.run(
        [sys.executable, "-m", "pgqueue.cli", "worker", "--app", "kill_app:pgq", "--burst"],
        cwd=HERE,
        env={
            **os.environ,
            **QUICK,
            "PGQUEUE_DATABASE_URL": database,
            "EVENTS": str(events),
            "KILL_AT": point,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    return [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]


def finishing_worker(database: str, job_id: int) -> list[str]:
    """Work in this process until the job is over; returns what was started and committed."""
    app = PgQueue(database)
    add_tasks(app)
    with recorded() as events:
        asyncio.run(work_until_over(app, job_id))
    app.close()
    return [
        f"{'started' if isinstance(event, StageStarted) else 'committed'}:{event.stage}"
        for event in events
        if isinstance(event, StageStarted | StageCommitted)
    ]


async def work_until_over(app: PgQueue, job_id: int) -> None:
    worker = app.worker(scheduler=False)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(40):
        while (await app.aget_job(job_id)).state not in ("completed", "failed", "cancelled"):
            await asyncio.sleep(0.1)
            assert not running.done()
    worker.stop()
    await running
